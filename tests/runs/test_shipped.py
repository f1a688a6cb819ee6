"""What ships is there at once: each run opens, fits its study, and has the figures of its kind."""

import pytest

from interp.report.of_run import figures_of, tables_of
from interp.runs.shipped import is_shipped, shipped
from interp.runs.store import open_run

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
