"""--fresh, stopped at every step: the next command finds a whole run, the old one or the new."""

import errno
import json
import threading
from pathlib import Path

import pytest

from interp.errors import UserError
from interp.model.files import remembered
from interp.runs.making import writing
from interp.runs.store import Store, open_run
from interp.runs.study import plan, run_or_load
from interp.runs.swap import fresh_folder, swap_in

from .test_store import Squares


class Killed(BaseException):
    """What no handler catches: the process is gone."""


CALLS = ("rename", "unlink", "rmdir", "mkdir")


def stopping(monkeypatch, at, error):
    """Counts what changes the disk, and raises instead of the call with number `at`."""
    count = 0

    def wrapped(name):
        real = getattr(Path, name)

        def call(self, *args, **kwargs):
            nonlocal count
            if count == at:
                count += 1
                raise error
            count += 1
            return real(self, *args, **kwargs)

        return call

    for name in CALLS:
        monkeypatch.setattr(Path, name, wrapped(name))
    return lambda: count


def two_runs(tmp_path):
    """An old run with a foreign file, and a new one ready to take its place."""
    out = tmp_path / "out"
    old = run_or_load(Squares(), out=out)
    (out / "notes.md").write_text("mine")
    (out / "mine").mkdir()
    (out / "mine" / ".hidden").write_text("mine too")
    with writing(fresh_folder(out), plan(Squares())) as writer:
        metrics = {**Squares().run(writer), "new": 1}
        writer.finish(metrics)
    return out, old


def steps(tmp_path, monkeypatch):
    """How many calls that change the disk an unhindered swap makes."""
    out, _ = two_runs(tmp_path / "counted")
    with monkeypatch.context() as patched:
        made = stopping(patched, -1, Killed())
        swap_in(out)
        return made()


@pytest.mark.parametrize("error", [Killed(), OSError(errno.EIO, "Input/output error")])
def test_a_swap_stopped_at_any_step_is_settled(error, own_home, tmp_path, monkeypatch):
    (tmp_path / "counted").mkdir()
    total = steps(tmp_path, monkeypatch)
    assert total >= 8
    for at in range(total):
        folder = tmp_path / f"at{at}"
        folder.mkdir()
        out, _ = two_runs(folder)
        with monkeypatch.context() as patched:
            stopping(patched, at, error)
            with pytest.raises((Killed, UserError)):
                swap_in(out)
        run = open_run(out)
        assert run.metrics in ({"made": 3}, {"made": 3, "new": 1}), at
        again = run_or_load(Squares(), out=out, fresh=True)
        assert again.metrics["made"] == 3
        assert (out / "notes.md").read_text() == "mine"
        assert (out / "mine" / ".hidden").read_text() == "mine too"
        assert sorted(p.name for p in folder.iterdir()) == ["out"], at


def test_what_is_being_made_is_no_second_run(own_home, tmp_path):
    run = run_or_load(Squares())
    with writing(fresh_folder(run.path), plan(Squares())) as writer:
        writer.finish(Squares().run(writer))
    assert [each.path for each in Store().runs()] == [run.path]


def test_two_starts_of_one_run(own_home, tmp_path, monkeypatch):
    """The second comes between the first one's lock and its run.json."""
    out = tmp_path / "out"
    out.mkdir()
    (out / ".lock").touch()
    with writing(out, plan(Squares())) as writer:
        Squares().run(writer)
        with (
            pytest.raises(UserError, match="another process is writing"),
            writing(out, plan(Squares())),
        ):
            pass


def test_many_write_one_note(own_home):
    """Threads and processes share no temporary name."""
    failed = []

    def write():
        try:
            for _ in range(50):
                assert remembered("one", "[0-9]+", lambda: "123") == "123"
                (own_home / "interp" / "fingerprints").exists()
        except Exception as error:  # noqa: BLE001  any failure is what is looked for
            failed.append(error)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_the_newest_is_said_to_be_taken(own_home, caplog):
    run_or_load(Squares(2))
    run_or_load(Squares(3))
    caplog.set_level("INFO")
    for asked in (lambda: Store().find("test.squares"), lambda: Store().newest("test.squares", "")):
        caplog.clear()
        run = asked()
        assert f"taken: run {run.path.name}, finished {run.manifest['finished']}" in caplog.text


def test_the_seal_is_written(own_home):
    run = run_or_load(Squares())
    stored = json.loads((run.path / "manifest.json").read_text())
    assert (stored["schema"], len(stored["seal"]), stored["unkeyed"]) == (2, 64, ["fail_at"])
