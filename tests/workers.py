"""Whether several workers make the run that one process makes."""

import pickle
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Any
from unittest import mock

from interp.runs.store import Store
from interp.runs.study import run_or_load
from interp.runs.workers_lent import Lending
from interp.runs.workers_task import Task, Workers

TIMES = {"wall_s", "finished", "peak_memory_bytes", "seal", "config", "seconds"}
"""Entries of a manifest that differ from run to run, or say who made it."""


def sent(thing: Any) -> Any:
    """What another process would get."""
    return pickle.loads(pickle.dumps(thing))  # noqa: S301


class Copies:
    """A crew (`workers_task.Crew`) in this process, without the ten seconds that a new one takes:
    two workers get a task, its parts and their results as pickles, and finish the last part first.

    What processes of their own add to that, tests/runs/test_workers.py tells.
    """

    def __init__(self, task: Task[Any], workers: Workers) -> None:
        self._lent = [task.lend()] if isinstance(task, Lending) else []
        self._task, self._parts = task, dict[int, Any]()
        self._opened, self._numbers = dict[int, Any](), count()

    def room(self) -> int:
        return 2

    alive = room

    def begin(self, part: Any) -> int:
        number = next(self._numbers)
        self._parts[number] = sent(part)
        return number

    def first(self, begun: Sequence[int]) -> int:
        return begun[-1]

    def result(self, begun: int) -> Any:
        task, opened = self._worker(begun % 2)
        return sent(task.make(opened, self._parts.pop(begun)))

    def _worker(self, number: int) -> Any:
        if number not in self._opened:
            task = sent(self._task)
            self._opened[number] = task, task.open(*self._lent)
        return self._opened[number]

    def end(self, begun: Sequence[int]) -> None:
        self._parts.clear()


def by_copies() -> Any:
    """Several workers are `Copies` here."""
    return mock.patch("interp.runs.workers._crew", Copies)


def assert_same_by_two(config, one, folder, store=None):
    """Two workers make the run `one`, its files to the byte.

    Args:
        folder: where the other run is written.
        store: of the runs that it needs.
    """
    with by_copies():
        two = run_or_load(replace(config, workers="2"), store or Store(folder), out=folder / "two")
    assert two.manifest["config"]["workers"] == "2"
    ours, theirs = ({**run.manifest} for run in (one, two))
    for name in TIMES:
        ours.pop(name, None), theirs.pop(name, None)
    assert ours == theirs
