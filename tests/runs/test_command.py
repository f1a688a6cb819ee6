"""The command that makes a run again, and what is said of runs that are not finished."""

import dataclasses
import json
import shlex
from pathlib import Path

import pytest

from interp.cli import parse
from interp.errors import UserError
from interp.neurons.atlas import AtlasConfig
from interp.runs import command as commands
from interp.runs.command import command, command_of, program, shell_line, store_words
from interp.runs.manifest import JOURNAL
from interp.runs.store import Store, open_run
from interp.runs.study import run_or_load
from interp.runs.unfinished import unfinished
from interp.runs.writer import keep_journal

from ..manifests import finish_by_hand
from .test_store import Squares

CONFIG = {"model": "a model", "k": 7, "device": "cpu"}


def begun(store, key="0123456789ab", study="neurons.atlas", config=CONFIG):
    """A run's folder as a kill leaves it after its first part."""
    folder = Path(store) / study / key
    folder.mkdir(parents=True)
    plan = {"study": study, "version": 1, "key": key, "config": config}
    (folder / "run.json").write_text(json.dumps(plan))
    keep_journal(folder, {}, {}, 1.0)
    return folder


@pytest.fixture
def store(own_home):
    return own_home / "runs"


def test_an_unfinished_run_is_named_with_its_command(store):
    folder = begun(store)
    (line,) = unfinished(store)
    own = f"neurons atlas --model 'a model' --k 7 --runs {store}"
    assert line.startswith(f"{folder} is not finished")
    assert f"interp {own}` resumes it" in line
    parse(shlex.split(own))
    with pytest.raises(UserError, match="no atlas; .* --k 7 .*resumes it"):
        Store().newest("neurons.atlas", "no atlas")
    for name in ("neurons.atlas", folder.name[:6]):
        with pytest.raises(UserError, match=f"no run '{name}'.* --k 7 .*resumes it"):
            Store().find(name)
    with pytest.raises(UserError, match="is not finished: `.*interp neurons atlas .* resumes it"):
        open_run(folder)
    assert not unfinished(store, "neurons.clamp")
    (folder / JOURNAL).unlink()
    assert not unfinished(store), "it may have been refused: there is nothing to resume"


def test_a_finished_run_and_one_that_is_to_replace_another_are_not_unfinished(store):
    finish_by_hand(store, "neurons.atlas", CONFIG)
    begun(store, ".0123456789ab.fresh")
    assert not unfinished(store)


def test_a_run_in_a_folder_of_its_own(tmp_path, store):
    folder = begun(store).rename(tmp_path / "mine")
    assert command_of(folder, "--fresh").endswith(f"--k 7 --out {folder} --fresh")


@pytest.mark.parametrize(
    "change",
    [
        {"study": "evil.thing"},
        {"study": 3},
        {"study": "neurons.atlas", "config": None},
        {"study": ["a"]},
    ],
)
def test_what_no_command_can_be_made_of_has_none(store, change):
    folder = begun(store)
    plan = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(plan | change))
    assert command_of(folder) == ""
    assert "run its command again" in unfinished(store)[0]


def test_a_config_from_someone_else_stays_words(store):
    folder = begun(store, config={"model": "x; rm -rf ~", "k": "--out"})
    line = command_of(folder)
    assert shlex.split(line)[3:6] == ["--model", "x; rm -rf ~", "--k=--out"]


def test_the_option_of_the_store_is_left_out_where_it_is_the_usual_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("INTERP_RUNS", raising=False)
    assert store_words(tmp_path / "runs") == []
    monkeypatch.setenv("INTERP_RUNS", str(tmp_path / "other"))
    assert store_words(tmp_path / "runs") == ["--runs", str(tmp_path / "runs")]
    # a page's command is pasted where the variable is not set
    assert store_words(tmp_path / "other") == ["--runs", str(tmp_path / "other")]


def test_how_the_program_is_called(tmp_path, monkeypatch):
    own = tmp_path / ".venv" / "bin" / "interp"
    own.parent.mkdir(parents=True)
    own.touch(0o755)
    monkeypatch.setattr(commands.sys, "executable", str(own.with_name("python")))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert program() == ".venv/bin/interp"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert program() == str(own)
    monkeypatch.setenv("PATH", str(own.parent))
    assert program() == "interp"
    assert shell_line(["interp", "cite", "a b"]) == "interp cite 'a b'"


def test_defaults_are_left_out():
    assert command(AtlasConfig.STUDY, {"model": AtlasConfig().model}) == [
        "interp",
        "neurons",
        "atlas",
    ]


@dataclasses.dataclass(frozen=True)
class Modelled(Squares):
    def fingerprints(self):
        raise UserError("cannot download the model")


def test_a_stored_run_of_a_model_that_is_not_here_is_named(own_home):
    stored = run_or_load(Squares(5))
    with pytest.raises(UserError, match="cannot download the model; a run of these") as caught:
        run_or_load(Modelled(5))
    assert f"`interp figure {stored.path}`" in str(caught.value)
    with pytest.raises(UserError, match="cannot download the model$"):
        run_or_load(Modelled(6))


def test_a_damaged_run_is_told_with_its_command(store):
    made = {"x.json": lambda path: path.write_text("{}")}
    folder = finish_by_hand(store, "neurons.atlas", CONFIG, made=made)
    (folder / "x.json").write_text("{")
    with pytest.raises(
        UserError, match="`.*interp neurons atlas .* --k 7 .*` makes it again, or ask"
    ):
        open_run(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(
        UserError, match=f"--k 7 --runs {store} --fresh` makes it again, or ask its"
    ):
        open_run(folder)
    (folder / "run.json").unlink()
    with pytest.raises(UserError, match="its own command with --fresh makes it again, or ask its"):
        open_run(folder)
