"""Run folders: keys, atomic parts, resume, refusal of foreign folders."""

import errno
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pytest
import torch

from interp.directions import Directions
from interp.errors import UserError
from interp.model.site import Site
from interp.runs.store import Store, open_run
from interp.runs.study import plan, run_or_load
from interp.runs.writer import RunWriter


@dataclass(frozen=True)
class Squares:
    """Write n squares, one part each."""

    STUDY: ClassVar[str] = "test.squares"
    VERSION: ClassVar[int] = 1

    n: int = 3
    fail_at: int = field(default=-1, metadata={"key": False})

    def fingerprints(self):
        return {"data": "abc"}

    def check(self):
        if self.n < 1:
            raise UserError("n must be positive")

    def run(self, out):
        made = 0
        for i in range(self.n):
            if out.has(f"squares/{i}.parquet"):
                continue
            with out.part(f"squares/{i}.parquet") as path:
                path.write_text(str(i * i))
                if i == self.fail_at:
                    raise OSError(errno.ENOSPC, "No space left on device")
            made += 1
        return {"made": made}


def test_a_run_is_made_once(own_home):
    first = run_or_load(Squares())
    again = run_or_load(Squares())
    assert first.metrics == again.metrics == {"made": 3}
    assert first.path == own_home / "runs" / "test.squares" / plan(Squares())["key"]
    assert sorted(first.manifest["files"]) == [f"squares/{i}.parquet" for i in range(3)]
    assert [run.path for run in Store().runs()] == [first.path]


def test_key_follows_the_settings_that_matter(own_home):
    assert plan(Squares(3))["key"] != plan(Squares(4))["key"]
    assert plan(Squares(3, fail_at=1))["key"] == plan(Squares(3))["key"]


def test_full_disk_keeps_finished_parts_and_resumes(own_home):
    with pytest.raises(UserError, match=r"No space left on device; free some space"):
        run_or_load(Squares(fail_at=2))
    folder = Store().folder("test.squares", plan(Squares())["key"])
    assert sorted(p.name for p in (folder / "squares").iterdir()) == ["0.parquet", "1.parquet"]
    with pytest.raises(UserError, match="is not finished"):
        open_run(folder)
    assert Store().runs() == []
    assert run_or_load(Squares()).metrics == {"made": 1}


def test_fresh_runs_again(own_home):
    run_or_load(Squares())
    assert run_or_load(Squares(fail_at=7)).metrics == {"made": 3}
    path = run_or_load(Squares()).path
    (path / "squares" / "0.parquet").write_text("old")
    run_or_load(Squares(), fresh=True)
    assert (path / "squares" / "0.parquet").read_text() == "0"


def test_a_failed_fresh_run_keeps_the_old_one_and_foreign_files(own_home, tmp_path):
    out = tmp_path / "out"
    run_or_load(Squares(), out=out)
    (out / "notes.md").write_text("mine")
    with pytest.raises(UserError, match="No space left"):
        run_or_load(Squares(fail_at=1), out=out, fresh=True)
    assert open_run(out).metrics == {"made": 3}
    run_or_load(Squares(), out=out, fresh=True)
    assert (out / "notes.md").read_text() == "mine"
    assert not list(tmp_path.glob(".out.fresh"))


def test_a_damaged_part_is_noticed_and_made_again(own_home):
    path = run_or_load(Squares()).path
    (path / "squares" / "1.parquet").write_text("9")  # same length
    assert run_or_load(Squares()).metrics == {"made": 1}
    assert (path / "squares" / "1.parquet").read_text() == "1"
    (path / "squares" / "2.parquet").unlink()
    with pytest.raises(UserError, match=r"2.parquet is missing or damaged"):
        open_run(path)
    assert run_or_load(Squares()).metrics == {"made": 1}


def test_a_mistake_writes_nothing(own_home, tmp_path):
    with pytest.raises(UserError, match="must be positive"):
        run_or_load(Squares(0), out=tmp_path / "out")
    assert run_or_load(Squares(2), out=tmp_path / "out").metrics == {"made": 2}


def test_a_table_that_is_not_there_is_told_what_there_is(own_home):
    run = run_or_load(Squares())
    with pytest.raises(UserError, match="has no table square; it has squares/0, squares/1, squa"):
        run.table("square")


def test_glob_characters_in_a_path(own_home, tmp_path):
    run = run_or_load(Squares(), out=tmp_path / "a[1]*?'b")
    assert "a[[]1][*][?]''b" in run.sql("squares")


def test_foreign_folders_are_refused_and_left_alone(own_home, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="is not empty and holds no run"):
        run_or_load(Squares(), out=folder)
    with pytest.raises(UserError, match=r"nothing holds no run \(there is no such folder\)"):
        open_run(own_home / "nothing")
    with pytest.raises(UserError, match=r"holds no run \(no manifest.json\)"):
        open_run(folder)
    assert [p.name for p in folder.iterdir()] == ["thesis.tex"]
    run_or_load(Squares(3), out=tmp_path / "three")
    with pytest.raises(UserError, match="holds another run"):
        run_or_load(Squares(4), out=tmp_path / "three")
    with pytest.raises(UserError, match="holds another run"):
        run_or_load(Squares(4), out=tmp_path / "three", fresh=True)
    with pytest.raises(UserError, match=r"holds a run of test.squares, not of neurons.atlas"):
        open_run(tmp_path / "three", "neurons.atlas")


def test_interrupted_folder_of_another_run_is_refused(own_home, tmp_path):
    with pytest.raises(UserError, match="No space"):
        run_or_load(Squares(3, fail_at=1), out=tmp_path / "part")
    with pytest.raises(UserError, match="holds another run"):
        run_or_load(Squares(4), out=tmp_path / "part")


def test_two_writers(own_home, tmp_path):
    from filelock import FileLock

    (tmp_path / "busy").mkdir()
    with FileLock(tmp_path / "busy" / ".lock"):
        (tmp_path / "busy" / "run.json").write_text(json.dumps(plan(Squares())))
        with pytest.raises(UserError, match="another process is writing"):
            run_or_load(Squares(), out=tmp_path / "busy")


def test_unwritable_output(own_home):
    with pytest.raises(UserError, match=r"cannot write /proc/nowhere"):
        run_or_load(Squares(), out=Path("/proc/nowhere/run"))


def test_damaged_manifest(own_home):
    path = run_or_load(Squares()).path
    (path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest.json is broken JSON"):
        open_run(path)
    (path / "manifest.json").write_text('{"schema": 1, "study": "test.squares"}')
    with pytest.raises(UserError, match="has no proper 'key'"):
        open_run(path)
    (path / "manifest.json").write_text('{"schema": 99}')
    with pytest.raises(UserError, match="not of this version's layout"):
        open_run(path)


def test_directions_are_part_of_a_run_and_survive_a_fresh_one(own_home):
    @dataclass(frozen=True)
    class Finds:
        STUDY: ClassVar[str] = "test.finds"
        VERSION: ClassVar[int] = 1

        def fingerprints(self):
            return {}

        def check(self):
            pass

        def run(self, out):
            index = pd.DataFrame({"name": ["a"]})
            Directions(Site("resid_post", 1), torch.ones(1, 3), index).save_in(out, "finds")
            return {}

    first = run_or_load(Finds())
    assert "finds/directions.json" in first.manifest["files"]
    again = run_or_load(Finds(), fresh=True)
    assert Directions.load(again.path / "finds").site == Site("resid_post", 1)


def test_a_folder_below_a_file_is_a_line(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match="cannot write"),
        RunWriter(tmp_path / "file" / "a", {}).part("x"),
    ):
        pass
