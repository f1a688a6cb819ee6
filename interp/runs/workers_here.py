"""Parts in processes of this machine (`workers_task` says what for)."""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import UserError
from .workers_lent import lent_files, opened_with
from .workers_task import RETRIES, P, Task, Workers

AHEAD = 2
"""Parts under way or ready to begin, for each worker."""
_state: list[Any] = []
"""Of a worker: its task, the folder of what is lent to it, and what it has opened."""


def in_processes(
    task: Task[P],
    parts: Sequence[P],
    workers: Workers,
    died: Callable[[str], None],
    ordered: bool,
) -> Iterator[tuple[P, Any]]:
    """`workers.map_parts` in processes of this machine."""
    with lent_files(task) as lent:
        yield from _in_processes((task, lent), parts, workers, died, ordered)


def _in_processes(
    given: tuple[Task[P], Path | None],
    parts: Sequence[P],
    workers: Workers,
    died: Callable[[str], None],
    ordered: bool,
) -> Iterator[tuple[P, Any]]:
    left, lost = deque(parts), 0
    while left:
        pool = _pool(given, workers)
        under_way: dict[Future[Any], P] = {}
        try:
            while left or under_way:
                while left and len(under_way) < AHEAD * workers.number:
                    under_way[pool.submit(_made, left[0])] = left[0]
                    left.popleft()
                awaited = [next(iter(under_way))] if ordered else list(under_way)
                for done in wait(awaited, return_when=FIRST_COMPLETED).done:
                    result = done.result()
                    yield under_way.pop(done), result
                    lost = 0
        except BrokenProcessPool:
            left.extendleft(reversed(under_way.values()))
            lost += 1
            if lost > RETRIES:
                names = ", ".join(map(str, list(under_way.values())[: workers.number]))
                raise UserError(
                    f"a worker died {lost} times in a row, at part {names}: give fewer --workers "
                    "if memory is short"
                ) from None
            died(f"a worker died: {len(under_way)} parts are made again")
        finally:
            _end(pool)


class _Process(SpawnProcess):
    """A new process that does not begin with the main program of this one, be it a script, which
    may ask for workers itself, or a page."""

    def start(self) -> None:
        main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
        try:
            super().start()
        finally:
            sys.modules["__main__"] = main


class _Alone(SpawnContext):
    Process = _Process  # type: ignore[assignment]


def _pool(given: tuple[Task[Any], Path | None], workers: Workers) -> ProcessPoolExecutor:
    context = _Alone()
    number = context.Value("i", 0)
    about = (*given, number, workers.cores, workers.gpus)
    return ProcessPoolExecutor(
        workers.number, mp_context=context, initializer=_begin, initargs=about
    )


def _end(pool: ProcessPoolExecutor) -> None:
    """Stop a pool at once, whatever its workers are at."""
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


def _begin(task: Task[Any], lent: Path | None, number: Any, cores: int, gpus: float) -> None:
    """Make this process a worker; torch is not imported yet."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asked ends its workers
    with number.get_lock():
        own, number.value = number.value, number.value + 1
    threads = os.environ.get("OMP_NUM_THREADS") or str(cores)
    os.environ |= {"OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads}
    if gpus:
        first = int(own * gpus)
        most = max(int(gpus), 1)
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(first, first + most)))
    _state[:] = [task, lent]


def _made(part: Any) -> Any:
    if len(_state) == 2:
        _state.append(opened_with(*_state))
    task, _, opened = _state
    return task.make(opened, part)
