"""What a kill leaves at the steps where `tests/kills` found that it mattered."""

from dataclasses import dataclass
from typing import ClassVar

import pytest

from interp.model.files import remembered
from interp.runs import parts, writer
from interp.runs.checkpoint import Checkpoint
from interp.runs.store import Store
from interp.runs.study import run_or_load


class Killed(BaseException):
    """What no handler catches: the process is gone."""


@dataclass(frozen=True)
class Told:
    """A study that says something of its table where it makes it, and no later."""

    STUDY: ClassVar[str] = "test.told"
    VERSION: ClassVar[int] = 1

    def fingerprints(self):
        return {}

    def check(self):
        pass

    def run(self, out):
        def table():
            out.facts |= {"parity": 0.5}
            return [{"n": 1}]

        out.table_once("all/table", table)
        Checkpoint(out, "all/work").write({}, {"step": 1})
        out.facts |= {"end": True}
        return {}


def killed_in(monkeypatch, owner, name, action, at=1):
    """`action` runs until the call number `at` of a function."""
    real, calls = getattr(owner, name), []

    def dying(*args, **kwargs):
        calls.append(args)
        if len(calls) == at:
            raise Killed
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dying)
        with pytest.raises(Killed):
            action()


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("where", ["{key}", ".{key}.fresh"])
def test_before_run_json_has_its_name(where, fresh, own_home):
    run = run_or_load(Told())
    folder = run.path.with_name(where.format(key=run.path.name))
    for path in sorted(run.path.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.mkdir(exist_ok=True)
    for name in (".lock", ".run.json.making"):
        (folder / name).touch()
    assert run_or_load(Told(), fresh=fresh).manifest["parity"] == 0.5
    if fresh:
        assert [p.name for p in run.path.parent.iterdir()] == [run.path.name]


def test_what_is_said_of_a_part_stays_with_it(own_home, monkeypatch):
    """A resumed run does not make the part again, and its manifest is that of an unbroken one."""
    whole = run_or_load(Told(), Store(own_home / "whole"))
    killed_in(monkeypatch, writer, "peak_memory", lambda: run_or_load(Told()))
    folder = Store().folder("test.told", whole.path.name)
    assert (folder / "all" / "table.parquet").exists()
    assert (folder / "all" / ".work.pieces").is_dir(), "a stop at the end costs nothing"
    made = run_or_load(Told())
    assert (made.manifest["parity"], made.manifest["end"]) == (0.5, True)
    assert made.manifest.keys() == whole.manifest.keys()
    assert not list(made.path.rglob("*.pieces"))


def test_of_a_run_that_was_not_begun_nothing_is_said(own_home, monkeypatch):
    """Killed between what is said and its part; the next run in that folder is another one."""
    out = own_home / "out"
    killed_in(monkeypatch, parts, "sync_folder", lambda: run_or_load(Told(), out=out), at=2)
    assert list(out.rglob("journal.json"))
    assert not list(out.rglob("*.parquet"))

    @dataclass(frozen=True)
    class Other(Told):
        VERSION: ClassVar[int] = 2

        def run(self, out):
            return {}

    assert "parity" not in run_or_load(Other(), out=out).manifest


def test_after_the_manifest_pieces_are_swept_by_the_next(own_home, monkeypatch):
    killed_in(monkeypatch, writer, "sweep", lambda: run_or_load(Told()))
    (run,) = Store().runs()
    assert list(run.path.rglob("*.pieces"))
    run_or_load(Told())
    assert not list(run.path.rglob("*.pieces"))


def test_a_half_written_note_is_made_again(own_home):
    form = "[0-9a-f]{64}"
    assert remembered("it", form, lambda: "a" * 64) == "a" * 64
    (note,) = (own_home / "home" / "fingerprints").iterdir()
    note.write_text("a" * 20)
    assert remembered("it", form, lambda: "b" * 64) == "b" * 64
    assert remembered("it", form, lambda: "c" * 64) == "b" * 64
    assert [p.name for p in note.parent.iterdir()] == [note.name], "no temporary file"
