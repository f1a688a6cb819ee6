"""Folders laid beside or around a run by whoever sent it, and runs that nobody finished."""

import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest

from interp.errors import UserError
from interp.model.files import remembered
from interp.runs import writer
from interp.runs.manifest import JOURNAL
from interp.runs.store import Store, open_run
from interp.runs.study import run_or_load

from ..manifests import finish_by_hand, seal_again
from .test_killed import killed_in
from .test_store import Squares


def home_of_user(folder):
    home = folder / "home_of_user"
    (home / "curve").mkdir(parents=True)
    for name in ("id_rsa", "notes.txt", "curve/thesis.txt", ".x.making", "manifest.json"):
        (home / name).write_text("precious")
    return home


def untouched(home):
    found = {p.relative_to(home).as_posix(): p for p in home.rglob("*") if p.is_file()}
    assert sorted(found) == [
        ".x.making",
        "curve/thesis.txt",
        "id_rsa",
        "manifest.json",
        "notes.txt",
    ]
    assert {p.read_text() for p in found.values()} == {"precious"}


@pytest.mark.parametrize("beside", [".{key}.old", ".{key}.fresh"])
@pytest.mark.parametrize("fresh", [False, True])
def test_a_link_beside_a_run_is_not_followed(beside, fresh, own_home, tmp_path):
    run, home = run_or_load(Squares()), home_of_user(tmp_path)
    manifest = json.loads((run.path / "manifest.json").read_text())
    manifest["files"]["id_rsa"] = {"sha256": "0" * 64, "bytes": 8}
    link = run.path.with_name(beside.format(key=run.path.name))
    link.symlink_to(home)
    seal_again(run.path, manifest)
    with pytest.raises(UserError):
        open_run(run.path)
    Store().looked_through()
    untouched(home)
    with pytest.raises(UserError, match="is a link"):
        run_or_load(Squares(), fresh=fresh)
    untouched(home)


def test_an_old_folder_that_is_one_is_left_by_readers(own_home):
    """Only who makes runs takes away what a swap left."""
    run = run_or_load(Squares())
    old = run.path.with_name(f".{run.path.name}.old")
    shutil.copytree(run.path, old)
    (old / "mine.txt").write_text("mine")
    open_run(run.path)
    assert (old / "mine.txt").exists()
    run_or_load(Squares())
    assert (run.path / "mine.txt").read_text() == "mine"
    assert not old.exists()


def test_nothing_moves_over_a_link(own_home, tmp_path):
    """`.KEY.old/out/x` of a stranger, and `KEY/out` is a link."""
    run = run_or_load(Squares())
    (tmp_path / "elsewhere").mkdir()
    old = run.path.with_name(f".{run.path.name}.old")
    (old / "out").mkdir(parents=True)
    (old / "out" / "x").write_text("planted")
    (run.path / "out").symlink_to(tmp_path / "elsewhere")
    run_or_load(Squares())
    assert not list((tmp_path / "elsewhere").iterdir())
    assert (old / "out" / "x").exists()


@pytest.mark.parametrize("level", ["key", "study"])
def test_a_run_is_not_written_into_a_link(level, own_home, tmp_path):
    run, home = run_or_load(Squares()), home_of_user(tmp_path)
    (home / "run.json").write_text((run.path / "run.json").read_text())
    place = run.path if level == "key" else run.path.parent
    shutil.rmtree(place)
    place.symlink_to(home)
    for fresh in (False, True):
        with pytest.raises(UserError, match="is a link"):
            run_or_load(Squares(), fresh=fresh)
    (home / "run.json").unlink()
    untouched(home)


def test_a_manifest_that_is_a_link(own_home, tmp_path):
    run = run_or_load(Squares())
    shutil.move(run.path / "manifest.json", tmp_path / "manifest.json")
    (run.path / "manifest.json").symlink_to(tmp_path / "manifest.json")
    with pytest.raises(UserError, match="is a link"):
        open_run(run.path)


def test_a_folder_holds_the_run_of_its_name(own_home, tmp_path):
    """Another run, whole and sealed, in the place of the one that is asked for."""
    one, other = run_or_load(Squares()), run_or_load(Squares(n=4))
    asked = (one.path / "run.json").read_text()
    shutil.rmtree(one.path)
    shutil.copytree(other.path, one.path)
    (one.path / "run.json").write_text(asked)
    with pytest.raises(UserError, match="holds another run"):
        run_or_load(Squares())
    found, complaints = Store().looked_through()
    assert [run.path for run in found] == [other.path]
    assert f"{one.path} holds the run {other.path.name}" in complaints[0]
    with pytest.raises(UserError, match="there is no run"):
        Store().find(one.path.name)
    moved = one.path.parents[1] / "another.study" / other.path.name
    shutil.copytree(other.path, moved)
    assert Store().runs("another.study") == []


def test_a_file_changed_in_place_with_its_time_put_back(own_home, tmp_path):
    """tar and rsync put times back; no program sets the time of the last change."""
    run = run_or_load(Squares())
    name = run.files[0]
    path = run.part(name)
    times = path.stat()
    path.write_text("7")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_size == times.st_size
    with pytest.raises(UserError, match="is not what the run wrote"):
        run.part(name)


def test_a_note_that_cannot_be_kept_costs_no_answer(own_home, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "file"))
    assert remembered("it", "a+", lambda: "aa") == "aa"
    assert "cannot keep" in caplog.text


@pytest.fixture
def stopped(own_home, monkeypatch):
    """A run whose manifest was not written yet: its journal says what is finished."""
    killed_in(monkeypatch, writer, "peak_memory", lambda: run_or_load(Squares()))
    (note,) = Store().root.glob("*/*/run.json")
    return note.parent


def squares(run):
    return [run.part(name).read_text() for name in run.files]


def test_a_part_of_a_stopped_run_that_was_changed_is_made_again(stopped, caplog):
    path = stopped / "squares" / "2.parquet"
    path.write_text("5")
    run = run_or_load(Squares())
    assert (squares(run), run.metrics) == (["0", "1", "4"], {"made": 1})
    assert f"{path} is not what the run wrote: it is made again" in caplog.text


def test_parts_that_no_journal_names_are_made_again(own_home, caplog):
    """A finished run without its manifest, as one sends it whose parts are to be believed."""
    run = run_or_load(Squares())
    (run.path / "manifest.json").unlink()
    (run.path / "squares" / "2.parquet").write_text("5")
    again = run_or_load(Squares())
    assert (squares(again), again.metrics) == (["0", "1", "4"], {"made": 3})
    assert "has no journal of what is finished: the run starts over" in caplog.text


def test_a_damaged_part_of_a_finished_run_alone_is_made_again(own_home):
    run = run_or_load(Squares())
    (run.path / "squares" / "2.parquet").write_text("5")
    again = run_or_load(Squares())
    assert (squares(again), again.metrics) == (["0", "1", "4"], {"made": 1})


def test_a_journal_does_not_say_what_the_run_is(stopped):
    journal = json.loads((stopped / JOURNAL).read_text())
    journal["facts"]["config"] = {"n": 99, "fail_at": -1}
    (stopped / JOURNAL).write_text(json.dumps(journal))
    assert run_or_load(Squares()).config["n"] == 3


def test_a_damaged_journal_is_a_line(stopped):
    (stopped / JOURNAL).write_text('{"facts": {}, "parts": {"x": "y"}, "seconds": 1.0}')
    with pytest.raises(UserError, match="'parts' of .*: delete the run's folder to start over"):
        run_or_load(Squares())


def test_wall_time_is_of_all_processes(stopped):
    journal = json.loads((stopped / JOURNAL).read_text())
    journal["seconds"] = 4000.5
    (stopped / JOURNAL).write_text(json.dumps(journal))
    assert 4000 < run_or_load(Squares()).manifest["wall_s"] < 4100


@pytest.mark.parametrize(
    ("name", "value"),
    [("peak_memory_bytes", 10**400), ("peak_memory_bytes", -1), ("wall_s", float("inf"))],
)
def test_numbers_that_are_none(name, value, tmp_path):
    folder = finish_by_hand(tmp_path, "a.b", {"model": "m"})
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest[name] = value
    seal_again(folder, manifest)
    with pytest.raises(UserError, match=f"no proper '{name}'|is no JSON|cannot be read"):
        open_run(folder)


def test_a_table_of_too_many_values(tmp_path, monkeypatch):
    from interp import plain_tables

    monkeypatch.setattr(plain_tables, "MOST", 1000)
    rows = pd.DataFrame({"value": np.zeros(1001)})
    folder = finish_by_hand(tmp_path, "a.b", {"model": "m"}, made={"t.parquet": rows.to_parquet})
    with pytest.raises(UserError, match="holds 1,001 values, and at most 1,000 are read"):
        open_run(folder).table("t")
