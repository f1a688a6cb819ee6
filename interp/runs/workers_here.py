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

from ..errors import UserError
from .workers_lent import Lending, LentFiles, opened_with
from .workers_task import P, Task, WorkerDied, Workers

_starting = Lock()
_state: list[Any] = []
"""Of a worker: its task, the folder of what is lent to it, and what it has opened."""


class Processes(Generic[P]):
    """A crew of processes (`workers_task.Crew`). Each is a pool of its own, so that one that dies
    takes no other's part with it; threads of this process share the parts out."""

    def __init__(self, task: Task[P], workers: Workers) -> None:
        """Raises UserError for a task that no other process finds, or too few GPUs."""
        if type(task).__module__ == "__main__":
            raise UserError(
                f"workers import what they run: put {type(task).__name__} into a module of its own"
            )
        self._task, self._workers = task, workers
        self._settings = _settings(workers)
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
        try:
            self._threads.shutdown(wait=False, cancel_futures=True)
            processes = [each for pool in self._pools for each in _processes(pool).values()]
            for process in processes:  # all, before a second Ctrl-C may cut off the rest
                process.terminate()
            for pool in self._pools:
                pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.join()
            self._threads.shutdown()
        finally:
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
        alone = _Alone(self._settings[number])
        return ProcessPoolExecutor(
            1, mp_context=alone, initializer=_begin, initargs=(self._task, lent)
        )


def _settings(workers: Workers) -> list[dict[str, str]]:
    """What each process begins with in its environment: torch, which reads it as it is imported,
    may be imported for the task itself."""
    threads = os.environ.get("OMP_NUM_THREADS") or str(workers.cores)
    own = {"OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads}
    if not workers.gpus:
        return [own] * workers.number
    return [own | {"CUDA_VISIBLE_DEVICES": seen} for seen in _gpus(workers)]


def _gpus(workers: Workers) -> list[str]:
    """The GPUs that each process sees, of those that this one sees."""
    import torch

    allotted = os.environ.get("CUDA_VISIBLE_DEVICES")
    there = [str(n) for n in range(torch.cuda.device_count())] if allotted is None else None
    seen = there or [each for each in (allotted or "").split(",") if each]
    several, sharing = int(max(workers.gpus, 1)), round(1 / min(workers.gpus, 1))
    if workers.gpus not in (several, 1 / sharing):
        raise UserError(
            f"--gpus-per-worker {workers.gpus:g} cannot be given to processes: take a whole "
            "number, or a share such as 0.5"
        )
    needed = several * -(-workers.number // sharing)
    if needed > len(seen):
        raise UserError(
            f"--workers {workers.number} with --gpus-per-worker {workers.gpus:g} need {needed} "
            f"GPUs, and there are {len(seen)}"
        )
    firsts = [several * (number // sharing) for number in range(workers.number)]
    return [",".join(seen[first : first + several]) for first in firsts]


class _Process(SpawnProcess):
    """A new process that does not begin with the main program of this one, be it a script, which
    may ask for workers itself, or a page. It never hears Ctrl-C: whoever asked for it ends it."""

    def __init__(self, settings: dict[str, str], *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._settings = settings

    def start(self) -> None:
        with _starting:
            main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
            before = {name: os.environ.get(name) for name in self._settings}
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            os.environ |= self._settings  # what is begun now takes both with it
            try:
                super().start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                sys.modules["__main__"] = main
                for name, value in before.items():
                    if value is None:
                        del os.environ[name]
                    else:
                        os.environ[name] = value


class _Alone(SpawnContext):
    def __init__(self, settings: dict[str, str]) -> None:
        super().__init__()
        self._settings = settings

    def Process(self, *given: Any, **named: Any) -> _Process:  # type: ignore[override]
        return _Process(self._settings, *given, **named)


def _processes(pool: ProcessPoolExecutor) -> Mapping[int, BaseProcess]:
    """Of a pool; none where it has not begun, or has ended."""
    return pool._processes or {}


def _begin(task: Task[Any], lent: str | None) -> None:
    """Make this process a worker."""
    Thread(target=_end_with, args=(parent_process(),), daemon=True).start()
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
