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
LEAST_BYTES, MOST_BYTES = 64 * 2**20, 100 * 2**40
"""Of a worker. A process with torch takes more than the least; Ray counts more than 800 TiB
wrongly."""
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
    def of(cls, who: str | int, gpus: float = 0, memory: str | int = "") -> Workers:
        """As the settings say: `1`, `4`, `ray`, `ray://HOST:PORT`, or a number; memory as in `24G`,
        or a number of bytes; "" for unknown.

        Raises:
            UserError: they say something else.
        """
        text, held = _text(who), _held(_text(memory))
        number = isinstance(gpus, int | float) and not isinstance(gpus, bool)
        if not number or not 0 <= gpus < 1000:
            raise UserError(
                f"--gpus-per-worker is a number of GPUs from 0 to 999, not {gpus!r:.40}"
            )
        if text == "ray":
            return cls(0, "auto", gpus, held)
        if re.fullmatch(r"ray://[\w.\-\[\]:]+:\d+", text):
            return cls(0, text, gpus, held)
        if not re.fullmatch(r"[1-9]\d*", text):
            raise UserError(
                f"--workers is a number of processes, ray, or ray://HOST:PORT, not '{text[:40]}'"
            )
        if float(text) > MOST * (cores := os.cpu_count() or 1):
            raise UserError(
                f"--workers {text[:40]} are too many: this machine has {cores} cores, give at most "
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


def _text(given: object) -> str:
    """A setting as the command line has it; Python may say a whole number as one. Of what is
    neither it is a text that nothing can be read from."""
    plain = isinstance(given, str) or type(given) is int
    return str(given) if plain else f"{type(given).__name__} {given!r}"


def _held(memory: str) -> int:
    """The bytes of `--memory-per-worker`; 0 where it says none.

    Raises:
        UserError: it is none, or no worker takes so little or so much.
    """
    if not memory:
        return 0
    if (held := bytes_said(memory)) is None:
        raise UserError(f"--memory-per-worker is bytes, as in 24G, not '{memory[:40]}'")
    if not LEAST_BYTES <= held <= MOST_BYTES:
        raise UserError(
            f"--memory-per-worker is 64M (a process with torch takes more) to 100T, not "
            f"'{memory[:40]}'; leave it out for what is known of the study"
        )
    return held
