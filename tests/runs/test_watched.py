"""Progress that others can watch: listeners, and the file in a run's folder."""

import json
import re
import time
from dataclasses import dataclass
from typing import ClassVar

import pytest

from interp import progress as module
from interp.progress import listening, progress, waiting
from interp.runs.store import Store
from interp.runs.study import run_or_load
from interp.runs.watched import FILE, held, seen, under_way

from .test_jobs import until


@dataclass(frozen=True)
class Slow:
    """A study that looks at what others see of it."""

    n: int = 3

    STUDY: ClassVar[str] = "test.slow"
    VERSION: ClassVar[int] = 1
    looks: ClassVar[list] = []

    def fingerprints(self):
        return {}

    def check(self):
        pass

    def run(self, out):
        with progress("counting", self.n, "things", done=1) as advance:
            for number in range(1, self.n):
                out.table(f"part/{number}", [{"n": number}])
                advance(1, f"thing {number}")
            self.looks.append((under_way(out.path.parents[1]), held(out.path / ".lock")))
        self.looks.append((under_way(out.path.parents[1]), held(out.path / ".lock")))
        return {}


@pytest.fixture(autouse=True)
def always(monkeypatch):
    monkeypatch.setattr(module, "OFTEN", 0.0)
    Slow.looks.clear()


@pytest.mark.parametrize("soon", [0.01, 120.0])
def test_a_log_says_what_has_begun_where_its_first_unit_takes_long(monkeypatch, caplog, soon):
    monkeypatch.setattr(module, "SOON", soon)
    caplog.set_level("INFO", logger="interp")
    with progress("choosing", 5, "words") as advance:
        until(lambda: caplog.messages or soon > 1)
        advance(5)
    assert caplog.messages[:-1] == (["choosing 0/5 words"] if soon < 1 else [])
    assert caplog.messages[-1].startswith("choosing 5/5 words")


def test_listeners_are_told_of_each_step_and_of_the_last():
    outer, inner = [], []
    with listening(outer.append):
        with waiting("opening"):
            pass
        with listening(inner.append), progress("reading", 4, "rows", done=1) as advance:
            advance(1, "first")
            with progress("within", 9, "x") as silent:
                silent(5)
            advance(2)
    assert [(s.label, s.message, s.done) for s in inner] == [
        ("reading", "", 1), ("reading", "first", 2), ("reading", "", 4), ("reading", "", 4)
    ]  # fmt: skip
    assert outer == [outer[0], *inner]
    assert outer[0].label == "opening"
    assert outer[0].total == 0
    assert inner[-1].eta == 0
    assert inner[0].eta is None
    assert inner[1].rate > 0


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (5.0, "1/4 layers, 0.2 layers/s, ETA 15 s"),
        (0.75, "1/4 layers, 1.3 layers/s, ETA 2 s"),
        (1e-3, "1/4 layers, 1,000 layers/s, ETA 1 s"),
        (777.0, "1/4 layers, 0.0013 layers/s, ETA 39 min"),
    ],
)
def test_slow_work_has_a_rate_and_finished_work_has_no_eta(seconds, says, monkeypatch, caplog):
    """In the line that is logged, and in what a page shows."""
    now, told = [100.0], []
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    caplog.set_level("INFO", "interp")
    with listening(told.append), progress("atlas", 4, "layers") as advance:
        now[0] += seconds
        advance(1)
        advance(3)
    assert [caplog.messages[0], str(told[1])] == [f"atlas {says}"] * 2
    assert [step.left == "" for step in told] == [True, False, True, True]
    for last in (caplog.messages[1], str(told[-1])):
        assert last.startswith("atlas 4/4 layers, ")
        assert "ETA" not in last


@pytest.mark.parametrize(
    ("heard", "says"),
    [
        ((), ""),
        (((2, 0),), ", 2 workers"),
        (((2, 0), (1, 1)), ", 1 worker, 1 part made again"),
        (((4, 12),), ", 4 workers, 12 parts made again"),
    ],
)
def test_who_makes_the_parts_is_said_with_them(heard, says, caplog):
    told = []
    caplog.set_level("INFO", "interp")
    with listening(told.append), progress("atlas", 2, "layers") as advance:
        for workers, again in heard:
            advance.made_by(workers, again)
        advance(1)
        advance(1)
    for line in (caplog.messages[-1], str(told[-1])):
        assert re.fullmatch(rf"atlas 2/2 layers, [\d.,e+]+ layers/s{says}", line)


def test_a_part_that_is_made_again_is_told_of_before_the_next_is_finished(monkeypatch):
    told = []
    monkeypatch.setattr(module, "OFTEN", 1e9)
    with listening(told.append), progress("atlas", 2, "layers") as advance:
        advance.made_by(2, 0)
        advance.made_by(1, 1)
        assert [(step.workers, step.again) for step in told] == [(0, 0), (1, 1)]


def test_a_tight_loop_tells_a_few_times_a_second(monkeypatch):
    monkeypatch.setattr(module, "OFTEN", 0.2)
    steps = []
    with listening(steps.append), progress("fast", 100, "x") as advance:
        for _ in range(100):
            advance(1)
    assert [step.done for step in steps] == [0, 100]


def test_a_run_under_way_is_seen_from_outside_and_leaves_nothing(tmp_path):
    run = run_or_load(Slow(), Store(tmp_path))
    (during, was_held), (at_the_end, _) = Slow.looks
    (folder, said), *others = during.items()
    assert (folder, others, was_held) == (run.path, [], True)
    assert (said.step.label, said.step.message, said.step.done) == ("counting", "thing 2", 3)
    assert at_the_end[run.path].step.done == 3
    assert under_way(tmp_path) == {}
    assert not list(run.path.glob(".progress*"))
    assert run.files == ["part/1.parquet", "part/2.parquet"]


def test_what_a_killed_writer_left_is_no_run_under_way_and_is_swept(tmp_path):
    run = run_or_load(Slow(), Store(tmp_path))
    said = {"step": {"label": "x"}}
    (run.path / FILE).write_text(json.dumps({**said, "pid": 1}))
    assert seen(run.path).step.label == "x"
    assert under_way(tmp_path) == {}
    run_or_load(Slow(), Store(tmp_path))
    assert not (run.path / FILE).exists()


def test_a_disk_that_takes_no_progress_does_not_stop_the_run(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("interp.runs.watched._write", full)
    assert run_or_load(Slow(), Store(tmp_path)).files == ["part/1.parquet", "part/2.parquet"]


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"pid": 1}', '{"pid": "x", "step": {"label": "a"}}', "x" * 20_000,
     '{"pid": 1, "step": {"label": 3}}', '{"pid": 1, "step": {"label": "a", "eta": NaN}}'],
)  # fmt: skip
def test_a_file_of_someone_else_is_none(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    assert seen(tmp_path) is None


def test_a_link_is_neither_read_nor_written_through(tmp_path):
    mine = tmp_path / "mine"
    mine.write_text('{"pid": 1, "step": {"label": "a"}}')
    store = tmp_path / "store"
    folder = run_or_load(Slow(), Store(store)).path
    for name in (FILE, f"{FILE}.making"):
        (folder / name).symlink_to(mine)
    assert seen(folder) is None
    run_or_load(Slow(), Store(store), fresh=True)
    assert mine.read_text() == '{"pid": 1, "step": {"label": "a"}}'


def test_asking_for_a_lock_does_not_make_a_writer_fail(tmp_path):
    """A hundred questions a second, while runs begin."""
    import threading

    folder, done = tmp_path / "test.slow", threading.Event()

    def ask():
        while not done.is_set():
            for lock in folder.glob("*/.lock"):
                held(lock)
            time.sleep(0.001)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for number in range(3, 23):
            run_or_load(Slow(number % 2 + 2), Store(tmp_path), fresh=True)
    finally:
        done.set()
        asking.join()
