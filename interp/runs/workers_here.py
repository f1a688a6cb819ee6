"""Parts in processes of this machine (`workers_task` says what for)."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import parent_process
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from threading import Lock, Thread
from types import ModuleType
from typing import Any, Generic

from .workers_lent import Lending, LentFiles, opened_with
from .workers_task import P, Task, WorkerDied, Workers

_starting = Lock()
_state: list[Any] = []
"""Of a worker: its task, the folder of what is lent to it, and what it has opened."""


class Processes(Generic[P]):
    """A crew of processes (`workers_task.Crew`). Each is a pool of its own, so that one that dies
    takes no other's part with it; threads of this process share the parts out."""

    def __init__(self, task: Task[P], workers: Workers) -> None:
        self._task, self._workers = task, workers
        self._lent = LentFiles(task) if isinstance(task, Lending) else None
        self._threads = ThreadPoolExecutor(workers.number)
        self._pools = [self._pool(number) for number in range(workers.number)]
        self._free: SimpleQueue[int] = SimpleQueue()
        for number in range(workers.number):
            self._free.put(number)

    def room(self) -> int:
        return self._workers.number

    def alive(self) -> int:
        return sum(
            process.is_alive() for pool in self._pools for process in _processes(pool).values()
        )

    def begin(self, part: P) -> Future[Any]:
        return self._threads.submit(self._make, part)

    def first(self, begun: Sequence[Future[Any]]) -> Future[Any]:
        return wait(begun, return_when=FIRST_COMPLETED).done.pop()

    def result(self, begun: Future[Any]) -> Any:
        return begun.result()

    def end(self, begun: Sequence[Future[Any]]) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for pool in self._pools:
            _end(pool)
        self._threads.shutdown()
        if self._lent:
            self._lent.remove()

    def _make(self, part: P) -> Any:
        number = self._free.get()
        try:
            return self._pools[number].submit(_made, part).result()
        except BrokenProcessPool:
            self._pools[number] = self._pool(number)
            raise WorkerDied("a worker died") from None
        finally:
            self._free.put(number)

    def _pool(self, number: int) -> ProcessPoolExecutor:
        lent = self._lent.path if self._lent else None
        given = (self._task, lent, number, self._workers.cores, self._workers.gpus)
        return ProcessPoolExecutor(1, mp_context=_Alone(), initializer=_begin, initargs=given)


class _Process(SpawnProcess):
    """A new process that does not begin with the main program of this one, be it a script, which
    may ask for workers itself, or a page."""

    def start(self) -> None:
        with _starting:
            main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
            try:
                super().start()
            finally:
                sys.modules["__main__"] = main


class _Alone(SpawnContext):
    Process = _Process  # type: ignore[assignment]


def _processes(pool: ProcessPoolExecutor) -> Mapping[int, BaseProcess]:
    """Of a pool; none where it has not begun, or has ended."""
    return pool._processes or {}


def _end(pool: ProcessPoolExecutor) -> None:
    """Stop a pool at once, whatever its workers are at."""
    processes = _processes(pool)
    pool.shutdown(wait=False, cancel_futures=True)
    for process in list(processes.values()):
        process.terminate()
        process.join()


def _begin(task: Task[Any], lent: str | None, number: int, cores: int, gpus: float) -> None:
    """Make this process a worker; torch is not imported yet."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asked ends its workers
    Thread(target=_end_with, args=(parent_process(),), daemon=True).start()
    threads = os.environ.get("OMP_NUM_THREADS") or str(cores)
    os.environ |= {"OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads}
    if gpus:
        first = int(number * gpus)
        most = max(int(gpus), 1)
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(first, first + most)))
    _state[:] = [task, lent]


def _end_with(asking: BaseProcess) -> None:
    """End this process with the one that asked, which may have been killed."""
    asking.join()
    os._exit(1)


def _made(part: Any) -> Any:
    if len(_state) == 2:
        _state.append(opened_with(*_state))
    task, _, opened = _state
    return task.make(opened, part)
