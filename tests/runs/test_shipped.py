"""What ships is there at once: each run opens, fits its study, and has the figures of its kind."""

import pytest

from interp.cli import main
from interp.errors import UserError
from interp.report.of_run import figures_of, tables_of
from interp.runs.shipped import is_shipped, shipped, shipped_runs
from interp.runs.store import Store, open_run

from ..manifests import finish_by_hand

STUDIES = {
    "knob.run": "steer/scores",
    "lens.fit": "layers",
    "othello.compare": "scores",
    "othello.sae": "saes",
    "darkmatter.ladder": "ladder",
}


@pytest.mark.parametrize("study", STUDIES)
def test_a_shipped_run_opens_and_every_part_is_what_it_was(study):
    (run,) = shipped(study)
    assert is_shipped(run)
    assert open_run(run.path, study).manifest == run.manifest
    assert STUDIES[study] in tables_of(run)
    for name in run.files:
        run.part(name)
    for figure in figures_of(run).values():
        assert figure().data


def test_no_other_run_is_shipped(tmp_path):
    assert shipped("neurons.atlas") == []


def test_a_run_that_ships_is_found_where_the_store_has_none(tmp_path, capsys):
    (knob,) = shipped("knob.run")
    key = str(knob.manifest["key"])
    for name in ("knob.run", key, key[:5]):
        assert Store(tmp_path).find(name, others=shipped_runs()).path == knob.path
        with pytest.raises(UserError, match="there is no run"):
            Store(tmp_path).find(name)
    with pytest.raises(UserError, match="there is no run 'neurons"):
        Store(tmp_path).find("neurons.atlas", others=shipped_runs())
    file, where = tmp_path / "a.html", ["--runs", str(tmp_path)]
    assert main(["report", "knob.run", "--out", str(file), *where]) == 0
    assert key in file.read_text()
    capsys.readouterr()
    for command in ("figure", "cite"):
        assert main([command, key, *where]) == 0
        assert ("pairacc" if command == "figure" else key) in capsys.readouterr().out


def test_a_stores_own_run_comes_before_one_that_ships(tmp_path):
    own = finish_by_hand(tmp_path, "knob.run", {"model": "m"})
    assert Store(tmp_path).find("knob.run", others=shipped_runs()).path == own


def test_a_run_of_a_study_that_is_no_longer_there_is_one_line(tmp_path, capsys):
    finish_by_hand(tmp_path, "circuits.heads", {"model": "m"})
    for command in ("report", "figure"):
        assert main([command, "circuits.heads", "--runs", str(tmp_path)]) == 2
        (line,) = capsys.readouterr().err.strip().split("\n")
        assert "circuits.heads" in line
