"""Whether several workers make the run that one process makes."""

from dataclasses import replace

from interp.runs.store import Store
from interp.runs.study import run_or_load

TIMES = {"wall_s", "finished", "peak_memory_bytes", "seal", "config", "seconds"}
"""Entries of a manifest that differ from run to run, or say who made it."""


def assert_same_by_two(config, one, folder, store=None):
    """Two workers make the run `one`, its files to the byte.

    Args:
        folder: where the other run is written.
        store: of the runs that it needs.
    """
    two = run_or_load(replace(config, workers="2"), store or Store(folder), out=folder / "two")
    assert two.manifest["config"]["workers"] == "2"
    ours, theirs = ({**run.manifest} for run in (one, two))
    for name in TIMES:
        ours.pop(name, None), theirs.pop(name, None)
    assert ours == theirs
