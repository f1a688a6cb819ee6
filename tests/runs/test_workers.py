"""Parts are the same whoever makes them, each once; what dies is made again."""

import os
import signal
import sys
from dataclasses import MISSING, dataclass, fields, replace
from threading import Barrier
from types import ModuleType
from typing import Any

import pytest
import torch

from interp.analyses import analyses, load
from interp.errors import UserError
from interp.neurons.atlas import AtlasConfig
from interp.neurons.slices import VOCABULARY, Part
from interp.runs import workers_ray
from interp.runs.store import Store, usual_store
from interp.runs.study import PartedStudy, _keyed, plan, run_or_load
from interp.runs.workers import _check_may_go_on, map_parts
from interp.runs.workers_here import _gpus
from interp.runs.workers_task import RETRIES, WorkerDied, Workers

from .parted import (
    LONG,
    ROOT,
    Heard,
    Models,
    Squares,
    SquaresStudy,
    begun,
    ended,
    resumed_after_a_kill,
)

PARTS = list(range(9))
TWO = Workers(2)


@pytest.fixture(autouse=True)
def found_by_workers(monkeypatch):
    """A new process finds the tasks of this folder."""
    monkeypatch.syspath_prepend(str(ROOT))


def made(task, workers=TWO):
    found = list(map_parts(task, PARTS, workers))
    assert sorted(part for part, _ in found) == PARTS, "each once"
    return {part: result for part, (result, *_) in found}, {pid for _, (_, pid, _) in found}


def test_parts_are_those_of_one_process(tmp_path):
    one, own = made(Squares(str(tmp_path)), Workers(1))
    two, others = made(Squares(str(tmp_path), seconds=0.1))
    assert one == two == {n: n * n for n in PARTS}
    assert own == {os.getpid()}
    assert len(others) == 2
    assert os.getpid() not in others


def test_what_a_dead_worker_had_is_made_again_and_handed_over_once(tmp_path, caplog):
    heard, task = Heard(), Squares(str(tmp_path), dies=((3, 1), (7, 2)))
    found = list(map_parts(task, PARTS, TWO, heard))
    assert sorted((part, result) for part, (result, *_) in found) == [(n, n * n) for n in PARTS]
    assert [len(begun(tmp_path, n)) for n in PARTS] == [1, 1, 1, 2, 1, 1, 1, 3, 1], "no others"
    assert sorted(caplog.messages) == [f"a worker died: part {n} is made again" for n in (3, 7, 7)]
    assert heard.workers[-1] == (2, 3)
    assert len(heard.workers) == len(PARTS) + 3


def test_they_come_in_order_where_they_add_up(tmp_path):
    task = Squares(str(tmp_path), dies=((2, 1),), slow=(0, 4))
    assert [part for part, _ in map_parts(task, PARTS, TWO, ordered=True)] == PARTS


class Steps:
    """Squares in two steps, the second of which waits for the first of the next part."""

    def __init__(self, wrong: int = -1, unbegun: int = -1) -> None:
        self.both, self.begun, self.wrong, self.unbegun = Barrier(2), 0, wrong, unbegun

    def open(self):
        return "opened"

    def begin(self, opened, part):
        self.begun += 1
        if part > PARTS[0]:
            self.both.wait(120)
        if part == self.unbegun:
            raise UserError(f"no number {part}")
        return opened, part

    def finish(self, opened, begun):
        assert begun[0] == opened
        if begun[1] < PARTS[-1]:
            self.both.wait(120)
        if begun[1] == self.wrong:
            raise UserError(f"no square of {begun[1]}")
        return begun[1] ** 2


def test_in_this_process_a_part_is_finished_while_the_next_is_begun():
    task, found = Steps(), []
    for part, result in map_parts(task, PARTS):
        found.append((part, result))
        assert task.begun - len(found) <= 1, "one ahead"
    assert found == [(part, part * part) for part in PARTS]
    with pytest.raises(UserError, match="no square of 3"):
        list(map_parts(Steps(wrong=3), PARTS))
    found.clear()
    with pytest.raises(UserError, match="no number 3"):
        found.extend(part for part, _ in map_parts(Steps(unbegun=3), PARTS))
    assert found == PARTS[:3], "what was begun before is not lost"


def test_a_part_that_kills_every_worker_is_said(tmp_path):
    task = Squares(str(tmp_path), dies=((5, 100),))
    with pytest.raises(
        UserError, match=f"the workers of part 5 died {RETRIES + 1} times, at last: a w"
    ):
        list(map_parts(task, PARTS, TWO))
    assert len(begun(tmp_path, 5)) == RETRIES + 1


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_process_that_asked(tmp_path, sent):
    errors = ended([sys.executable, "-c", LONG, str(tmp_path), "2"], sent, tmp_path)
    assert ("KeyboardInterrupt" in errors) == (sent == signal.SIGINT)
    assert len(begun(tmp_path)) == 2


@pytest.mark.parametrize("workers", [Workers(1), TWO])
def test_a_mistake_of_a_part_is_its_own_and_is_not_tried_again(tmp_path, workers):
    with pytest.raises(UserError, match="no square of 4"):
        list(map_parts(Squares(str(tmp_path), wrong=(4,)), PARTS, workers))
    assert len(begun(tmp_path, 4)) == 1
    with pytest.raises(UserError, match="other weights here"):
        list(map_parts(Squares(str(tmp_path), fingerprint="other"), PARTS, workers))


def test_a_process_that_asked_and_is_killed_goes_on_where_it_was(tmp_path):
    resumed_after_a_kill("2", tmp_path)


def test_few_parts_are_under_way_at_once_and_none_once_nobody_asks(tmp_path):
    results = map_parts(Squares(str(tmp_path)), list(range(200)), TWO)
    next(results)
    results.close()
    assert len(list(tmp_path.iterdir())) < 12


@pytest.mark.parametrize(
    ("given", "want"),
    [
        (("1",), Workers(1)),
        (("4", 0.5), Workers(4, "", 0.5)),
        (("ray", 0, "1.5GiB"), Workers(0, "auto", 0, 3 * 2**29)),
        (("ray://10.0.0.1:10001",), Workers(0, "ray://10.0.0.1:10001")),
        ((2,), Workers(2)),
        (("ray", 0, "24 g"), Workers(0, "auto", 0, 24 * 2**30)),
        (("ray", 1, 2**30), Workers(0, "auto", 1, 2**30)),
        (("ray", 0, "64M"), Workers(0, "auto", 0, 2**26)),
    ],
)
def test_workers_by_their_words(given, want):
    assert Workers.of(*given) == want


NO_NUMBER = r"^--workers is a number of processes, ray, or ray://HOST:PORT, not '"
NO_SIZE = r"^--memory-per-worker is 64M \(a process with torch takes more\) to 100T, not '"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        *(((who,), NO_NUMBER) for who in ("0", "-1", "ray://", "many", "")),
        *(((who,), NO_NUMBER) for who in (0, -1, True, 2.0, None, ["2"], b"2")),
        *(((who,), "^--workers 9+ are too many: ") for who in ("9999", "9" * 11, 9999, "9" * 5000)),
        *((("1", gpus), "^--gpus-per-worker is ") for gpus in (-1, 1000, float("nan"), "1", True)),
        *((("ray", 0, size), NO_SIZE) for size in ("0", "0G", "1K", "63.9M", "101T", 1, 0)),
        *((("1", 0, size), NO_SIZE) for size in ("0G", "1K")),
        *((("ray", 0, size), " is bytes, as in 24G, not ") for size in ("2 pears", "-1G", 2e9)),
        (("ray", 0, "9" * 400), " is bytes, as in 24G, not "),
    ],
)
def test_words_that_name_no_workers(given, said):
    with pytest.raises(UserError, match=said) as error:
        Workers.of(*given)
    assert len(str(error.value)) < 200
    assert "\n" not in str(error.value)


PARTED = [
    kind
    for kind in (load(where) for entry in analyses().values() for where in entry.studies)
    if issubclass(kind, PartedStudy)
]


@pytest.mark.parametrize("kind", PARTED, ids=lambda kind: kind.STUDY)
def test_every_study_takes_workers_as_a_number(kind):
    needed = {each.name: "x" for each in fields(kind) if each.default is MISSING}
    one, two = (kind(**needed, workers=workers) for workers in ("2", 2))
    assert one.spread.number == two.spread.number == 2
    assert not {"workers", "memory_per_worker"} & set(_keyed(kind))


def test_a_run_by_a_number_of_workers_is_the_same_run(tmp_path):
    texts, numbers = (SquaresStudy(str(tmp_path), workers=workers) for workers in ("1", 1))
    assert plan(texts)["key"] == plan(numbers)["key"]
    made = run_or_load(numbers, Store(tmp_path / "runs"))
    assert run_or_load(texts, Store(tmp_path / "runs")).path == made.path


def test_less_than_a_gib_is_said_in_mib():
    assert workers_ray._said(Workers(0, "auto", 1, 2**26)) == "1 core, 1 GPUs, 64 MiB of memory"
    assert workers_ray._said(Workers(0, "auto", 0, 3 * 2**29)) == "1 core, 1.5 GiB of memory"


def test_the_vocabularys_part_of_an_atlas_is_named(caplog):
    for part in (VOCABULARY, Part(3, 1)):
        _check_may_go_on(part, 1, WorkerDied("a worker died"))
    assert caplog.messages == [
        "a worker died: part vocabulary (the table of the tokens) is made again",
        "a worker died: part layer 3, slice 1 is made again",
    ]


def test_an_atlas_by_two_workers_is_the_same_to_the_byte(dog_model, tmp_path):
    runs = [
        run_or_load(AtlasConfig(model=str(dog_model), k=8, workers=n), Store(tmp_path / str(n)))
        for n in ("1", 2)
    ]
    one, two = (
        {name: part["sha256"] for name, part in run.manifest["files"].items()} for run in runs
    )
    assert one == two
    assert len(one) > 5
    assert runs[0].manifest["key"] == runs[1].manifest["key"], "who makes it is no part of what"


def test_a_worker_with_other_weights_says_so(dog_model, model_folder):
    task = Models.of(AtlasConfig(model=str(dog_model)))
    other = replace(task, config=AtlasConfig(model=str(model_folder("llama"))))
    with pytest.raises(UserError, match="another model here than where the run was started"):
        other.open()
    assert task.open() == (task, str(dog_model))


@pytest.mark.parametrize("workers", [Workers(1), TWO])
def test_a_worker_looks_up_runs_in_the_store_of_who_asked(dog_model, tmp_path, workers):
    with usual_store(tmp_path):
        task = Models.of(AtlasConfig(model=str(dog_model)))
    assert {made for _, made in map_parts(task, PARTS, workers)} == {str(tmp_path)}


def test_workers_do_not_run_the_main_program(tmp_path, monkeypatch):
    """A script that asks for workers at its top level would ask again in each; a page's is gone."""
    script = tmp_path / "script.py"
    script.write_text("raise SystemExit('run again')")
    main = ModuleType("__main__")
    main.__file__ = str(script)
    monkeypatch.setitem(sys.modules, "__main__", main)
    two, _ = made(Squares(str(tmp_path)))
    assert two == {n: n * n for n in PARTS}
    assert sys.modules["__main__"] is main


def test_a_task_of_the_main_program_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(Squares, "__module__", "__main__")
    with pytest.raises(UserError, match=r"^workers import what they run: put Squares into a mod"):
        list(map_parts(Squares(str(tmp_path)), PARTS, TWO))


@dataclass(frozen=True)
class Seen:
    """What a worker finds in its environment; torch is imported with the task."""

    threads: Any = torch.get_num_threads

    def open(self):
        return None

    def make(self, opened, part):
        return self.threads(), os.environ["OMP_NUM_THREADS"]


def test_a_worker_has_its_share_of_cores_even_where_torch_comes_with_its_task(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = max((os.cpu_count() or 1) // 2, 1)
    assert set(dict(map_parts(Seen(), range(4), TWO)).values()) == {(cores, str(cores))}
    assert "OMP_NUM_THREADS" not in os.environ, "this process's own stay as they were"


@pytest.mark.parametrize(
    ("number", "gpus", "given"),
    [
        (2, 1, ["4", "GPU-5a"]),
        (1, 2, ["4,GPU-5a"]),
        (4, 0.5, ["4", "4", "GPU-5a", "GPU-5a"]),
        (3, 1, "need 3 GPUs, and there are 2"),
        (2, 1.5, "1.5 cannot be given to processes: take a whole number"),
        (2, 0.7, "0.7 cannot be given to processes"),
    ],
)
def test_gpus_are_those_that_this_process_was_given(number, gpus, given, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-5a")
    if isinstance(given, str):
        with pytest.raises(UserError, match=given):
            _gpus(Workers(number, gpus=gpus))
    else:
        assert _gpus(Workers(number, gpus=gpus)) == given


def test_no_gpu_at_all_is_said(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match="need 2 GPUs, and there are 0"):
        list(map_parts(Squares(""), PARTS, Workers(2, gpus=1)))
    for settings in (("1", 1.0, ""), ("2", 0.0, "4G"), ("ray", 0.0, "900T")):
        with pytest.raises(UserError, match=r"^--(gpus|memory)-per-worker is "):
            Workers.of(*settings)
