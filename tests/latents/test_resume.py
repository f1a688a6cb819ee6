"""A survey that is stopped or killed at any step: its rows are those of an unbroken one."""

from dataclasses import replace

import pytest

from interp.latents import finish, survey_part
from interp.runs import checkpoint
from interp.runs.store import Store, open_run
from interp.runs.study import run_or_load
from interp.runs.writer import RunWriter

from ..forked import die, killed
from .conftest import OTHELLO

SMALL = replace(OTHELLO, tokens=59 * 40)
"""Five batches, each of them a part here."""
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """Parts of one batch, and a checkpoint after each."""
    monkeypatch.setattr(survey_part, "TOKENS", 1)
    for name in ("SECONDS", "SHARE"):
        monkeypatch.setattr(checkpoint, name, 0)


@pytest.fixture(scope="module")
def whole(one_thread, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(survey_part, "TOKENS", 1)
        return run_or_load(SMALL, Store(tmp_path_factory.mktemp("whole")))


def same(one, other):
    assert {n: f["sha256"] for n, f in one.manifest["files"].items()} == {
        n: f["sha256"] for n, f in other.manifest["files"].items()
    }
    own = set(one.manifest) - {"seconds", "wall_s", "finished", "peak_memory_bytes", "seal"}
    assert {name: one.manifest[name] for name in own} == {n: other.manifest[n] for n in own}
    assert not list(other.path.rglob(".*.pieces"))


def test_stopped_in_every_part_and_every_table(whole, tmp_path, monkeypatch):
    """Each start gets one part, or one table, further than the one before."""
    read, write, left = survey_part.PartReader.read, RunWriter.table, [0]

    def stopping(function):
        def call(*args):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            return function(*args)

        return call

    monkeypatch.setattr(survey_part.PartReader, "read", stopping(read))
    monkeypatch.setattr(RunWriter, "table", stopping(write))
    store, stops = Store(tmp_path), 0
    while True:
        left[0] = 1
        try:
            same(whole, run_or_load(SMALL, store))
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops == 5 + 3 - 1  # of five parts and three tables the last ends it


def dies(store, at):
    """Before it writes its `at`th file: each part of the survey writes a checkpoint."""
    left, write = [at], RunWriter.part

    def part(self, name):
        left[0] -= 1
        if not left[0]:
            die()
        return write(self, name)

    RunWriter.part = part
    run_or_load(SMALL, store)


@pytest.mark.slow
def test_killed_once(whole, tmp_path):
    killed(dies, Store(tmp_path), 4)
    same(whole, run_or_load(SMALL, Store(tmp_path)))


@pytest.mark.slow
def test_killed_twenty_times(whole, tmp_path):
    """Ten runs, each killed twice, at every part that it writes."""
    for at in range(10):
        store = Store(tmp_path / str(at))
        killed(dies, store, 1 + at)
        killed(dies, store, 1 + at % 3)
        same(whole, run_or_load(SMALL, store))


def test_files_of_latents_are_cut_anywhere(whole, tmp_path, monkeypatch):
    import pandas as pd

    monkeypatch.setattr(finish, "CHUNK", 300)
    cut = run_or_load(SMALL, Store(tmp_path))
    assert "latents/00003.parquet" in cut.files
    for name in ("latents", "examples"):
        pd.testing.assert_frame_equal(open_run(whole.path).table(name), cut.table(name))
