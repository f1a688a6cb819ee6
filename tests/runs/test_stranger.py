"""A run folder from someone else: nothing outside is touched, and nothing in it is believed."""

import json
import os
import random
import shutil

import pandas as pd
import pytest

from interp.directions import stored_directions
from interp.errors import UserError
from interp.runs.manifest import read_manifest
from interp.runs.parts import check_part
from interp.runs.store import Store, open_run
from interp.runs.study import run_or_load
from interp.runs.writer import RunWriter

from ..manifests import finish_by_hand, seal_again
from .test_store import Squares


def made(store, **more):
    table = pd.DataFrame({"layer": [0, 1], "value": [0.5, 0.25]})
    parts = {f"layers/L{i}.parquet": table.to_parquet for i in range(3)}
    return finish_by_hand(store, "a.b", {"model": "m"}, made=parts, **more)


def renamed(folder, name):
    """The manifest with a part under another name, sealed by whoever made it."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = manifest["files"].pop("layers/L0.parquet")
    seal_again(folder, manifest)


OUTSIDE = [
    "../victim",
    "a/../../victim",
    "{victim}",
    "layers/../../victim",
    "..\\victim",
    "",
    "x\0y",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_outside(name, tmp_path):
    folder = made(tmp_path)
    victim = folder.parent / "victim"
    victim.write_text("precious")
    renamed(folder, name.format(victim=victim))
    for use in (open_run, read_manifest):
        with pytest.raises(UserError, match="names a file outside of itself"):
            use(folder)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("name", ["../victim", "{victim}"])
def test_a_run_that_is_made_again_deletes_nothing_outside(name, own_home, tmp_path):
    """The same command on a stranger's folder, whose parts do not fit their hashes."""
    folder = run_or_load(Squares()).path
    victim = folder.parent / "victim"
    victim.write_text("precious")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name.format(victim=victim)] = {"sha256": "0" * 64, "bytes": 8}
    seal_again(folder, manifest)
    with pytest.raises(UserError, match="names a file outside of itself"):
        run_or_load(Squares())
    run_or_load(Squares(), fresh=True)
    assert victim.read_text() == "precious"


def test_links_are_refused(tmp_path):
    folder = made(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    shutil.move(folder / "layers" / "L1.parquet", tmp_path / "elsewhere" / "L1.parquet")
    (folder / "layers" / "L1.parquet").symlink_to(tmp_path / "elsewhere" / "L1.parquet")
    with pytest.raises(UserError, match="is a link: a run folder holds none"):
        open_run(folder)
    shutil.rmtree(folder / "layers")
    (folder / "layers").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link: a run folder holds none"):
        open_run(folder)


def test_a_link_in_the_writers_way_is_not_written_through(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "run"
    (folder / "deep").mkdir(parents=True)
    (folder / ".x.json.making").symlink_to(victim)
    with RunWriter(folder, {}).part("x.json") as path:
        path.write_text("new")
    assert ((folder / "x.json").read_text(), victim.read_text()) == ("new", "precious")
    (folder / "linked").symlink_to(tmp_path)
    with pytest.raises(UserError, match="is a link"), RunWriter(folder, {}).part("linked/victim"):
        pass
    assert victim.read_text() == "precious"


def test_stray_files_are_no_part_of_a_run(tmp_path):
    folder = made(tmp_path)
    table = pd.DataFrame({"layer": [999], "value": [9.0]})
    table.to_parquet(folder / "layers" / "L999.parquet")
    table.to_parquet(folder / "more.parquet")
    run = open_run(folder)
    assert run.table("layers")["layer"].tolist() == [0, 1] * 3
    assert "L999" not in run.sql("layers")
    assert not run.has("more")
    with pytest.raises(UserError, match="has no table more; it has layers/L0"):
        run.table("more")
    (folder / "finds").mkdir()
    (folder / "finds" / "directions.json").write_text("{}")
    assert stored_directions(Store(tmp_path)) == []
    with pytest.raises(UserError, match="is no part of the run"):
        check_part(folder / "finds" / "directions.json")


EDITS = {
    "config": lambda m: m["config"].update(model="another"),
    "metrics": lambda m: m["metrics"].update(value=1),
    "files": lambda m: m.update(files={}),
    "a layer": lambda m: m["files"].pop("layers/L2.parquet"),
    "study": lambda m: m.update(study="a.c"),
    "no seal": lambda m: m.pop("seal"),
    "another layout": lambda m: (m.pop("seal"), m.update(schema=1), m["config"].update(model="x")),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_manifest_is_noticed(edit, tmp_path):
    folder = made(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    EDITS[edit](manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="was changed after the run was finished"):
        open_run(folder)


def test_a_run_of_the_first_layout_opens_and_its_settings_count(tmp_path):
    """It had no seal, and did not say which settings are part of the key."""
    folder = made(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("seal", "unkeyed"):
        manifest.pop(name)
    manifest |= {"schema": 1, "config": {**manifest["config"], "device": "cuda"}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert open_run(folder).config == {"model": "m", "device": "cuda"}
    manifest["config"]["model"] = "another"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="was changed after"):
        open_run(folder)


def test_flipped_bits_never_change_an_answer(tmp_path):
    """100 flips of one bit anywhere in a run: each is noticed, or the tables are what they were."""
    folder = made(tmp_path)
    want = open_run(folder).table("layers")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    rng, noticed = random.Random(0), 0
    for _ in range(100):
        file = rng.choice(files)
        whole, stat = file.read_bytes(), file.stat()
        at, bit = rng.randrange(len(whole)), 1 << rng.randrange(8)
        file.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
        try:
            run = open_run(folder)
            got = run.table("layers")
            assert got.equals(want)
            assert (run.config, run.study) == ({"model": "m"}, "a.b")
        except UserError:
            noticed += 1
        file.write_bytes(whole)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert noticed > 60, "run.json alone may be flipped unseen"
    assert open_run(folder).table("layers").equals(want)


def test_one_bad_run_does_not_hide_the_others(tmp_path, caplog):
    folder = made(tmp_path)
    other = finish_by_hand(tmp_path, "a.b", version=2)
    (other / "manifest.json").write_text("[" * 100_000)
    assert [run.path for run in Store(tmp_path).runs()] == [folder]
    assert "manifest.json is nested more than 100 deep" in caplog.text
