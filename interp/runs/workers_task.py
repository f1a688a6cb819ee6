"""Many independent parts of one job: made in this process, in others of this machine, or on a
cluster.

A study states its parts once, as a `Task`; the executors know nothing of studies. Whatever they do,
the results are those of one process: a part is a function of the task and of its own name, it is
made again where its worker died, and it is handed over once. The run's folder stays with the
process that asked. Parts come as they are finished: whoever needs them in order puts them in order.
"""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from ..errors import UserError
from ..plain_numbers import bytes_said

RETRIES = 3
"""How often a part is made again whose worker died."""
MOST = 4
"""Processes for each core, at most."""
MOST_BYTES = 100 * 2**40
"""Of a worker. Ray counts more than 800 TiB wrongly."""
P = TypeVar("P", bound=Hashable)
_Part = TypeVar("_Part", bound=Hashable, contravariant=True)


class Task(Protocol[_Part]):
    """What makes the parts of a job. It is sent to each worker, so it holds settings, no tensors;
    two that are equal make the same."""

    def open(self) -> Any:
        """What a worker keeps from part to part, opened once.

        Raises:
            UserError: this machine has other data than the one that asked.
        """
        ...

    def make(self, opened: Any, part: _Part) -> Any:
        """The result of a part: the same wherever it is made."""
        ...


@runtime_checkable
class InSteps(Protocol[_Part]):
    """A task whose parts are made in two steps: where this process makes them, a thread does the
    second one while the first one of the next part is under way. `make` does both."""

    def begin(self, opened: Any, part: _Part) -> Any:
        """Most of the work, on all cores; what it gives is small."""
        ...

    def finish(self, opened: Any, begun: Any) -> Any:
        """The result of a part, by what was begun of it."""
        ...


class WorkerDied(Exception):
    """The worker of a part, or what it had made of it, is gone; says how, as "a node was lost"."""


class Crew(Protocol[_Part]):
    """Workers of one task, beside this process. Whoever has a crew ends it."""

    def room(self) -> int:
        """How many workers there may be now, 1 or more."""
        ...

    def alive(self) -> int:
        """How many there are now."""
        ...

    def begin(self, part: _Part) -> Any:
        """Have a part made; returns what it is awaited by, which is hashable."""
        ...

    def first(self, begun: Sequence[Any]) -> Any:
        """Wait for one of them to be finished."""
        ...

    def result(self, begun: Any) -> Any:
        """Of a finished one.

        Raises:
            WorkerDied: the part may be begun again.
            Exception: the part's own.
        """
        ...

    def end(self, begun: Sequence[Any]) -> None:
        """Stop at once, whatever the workers are at, which is these."""
        ...


@dataclass(frozen=True)
class Workers:
    """Where parts are made, as `--workers` says."""

    number: int = 1
    """Processes of this machine; 1 is this process itself, 0 a cluster."""
    address: str = ""
    """Of a Ray cluster: "auto" for the one that this machine is part of, or ray://HOST:PORT."""
    gpus: float = 0
    """GPUs of a worker."""
    memory: int = 0
    """Bytes that a worker takes, for a cluster to count with; 0 for unknown."""

    @classmethod
    def of(cls, text: str, gpus: float = 0, memory: str = "") -> Workers:
        """As the settings say: `1`, `4`, `ray`, `ray://HOST:PORT`; memory as in `24G`.

        Raises:
            UserError: they say something else.
        """
        held = bytes_said(memory or "0")
        if held is None or held > MOST_BYTES:
            raise UserError(f"--memory-per-worker is bytes, as in 24G, not '{memory[:40]}'")
        if not 0 <= gpus < 1000:
            raise UserError(f"--gpus-per-worker is a number of GPUs from 0, not {gpus:g}")
        if text == "ray":
            return cls(0, "auto", gpus, held)
        if re.fullmatch(r"ray://[\w.\-\[\]:]+:\d+", text):
            return cls(0, text, gpus, held)
        if not re.fullmatch(r"[1-9]\d{0,3}", text):
            raise UserError(
                f"--workers is a number of processes, ray, or ray://HOST:PORT, not '{text[:40]}'"
            )
        if int(text) > MOST * (cores := os.cpu_count() or 1):
            raise UserError(
                f"--workers {text} are too many: this machine has {cores} cores, give at most "
                f"{MOST * cores}"
            )
        if held:
            raise UserError("--memory-per-worker is what a cluster counts with: give --workers ray")
        if gpus and text == "1":
            raise UserError("--gpus-per-worker is for several --workers: one process sees all")
        return cls(int(text), "", gpus, held)

    @property
    def beside(self) -> bool:
        """Whether there are others than this process."""
        return self.number != 1

    @property
    def cores(self) -> int:
        """Of each worker on this machine."""
        return max((os.cpu_count() or 1) // max(self.number, 1), 1)
