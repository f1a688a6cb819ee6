"""Progress of long work: a bar with rate and ETA on a terminal, a log line a step elsewhere.

Whoever listens is told of it as well, a few times a second: a run's folder, a job, a page.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from .plain_text import printable

log = logging.getLogger("interp")
OFTEN = 0.2
"""Seconds between two steps that listeners are told of, at least; the last one is always told."""
_shown: ContextVar[bool] = ContextVar("a bar is shown", default=False)


@dataclass(frozen=True)
class Step:
    """How far some work has come."""

    label: str
    message: str = ""
    done: float = 0.0
    total: float = 0.0
    """In units; 0 where it cannot be seen."""
    unit: str = ""
    rate: float = 0.0
    """Units a second since it began."""
    eta: float | None = None
    """Seconds to its end; None where they are unknown."""
    time: float = 0.0
    """When this was so, in seconds since 1970."""

    @property
    def share(self) -> float | None:
        """Of the work that is done, from 0 to 1; None where it cannot be seen."""
        return min(max(self.done / self.total, 0.0), 1.0) if self.total > 0 else None

    def __str__(self) -> str:
        """In one line: "atlas of x 12/30 layers, 3 layers/s, ETA 20 s"."""
        what = f"{self.label} {self.message}".strip()
        if self.share is None:
            return what
        rate = f", {_rate(self.rate, self.unit)}" if self.rate else ""
        return f"{what} {self.counted}{rate}{self.left}"

    @property
    def counted(self) -> str:
        """ "12/30 layers" """
        return f"{self.done:,.0f}/{self.total:,.0f} {self.unit}" if self.total > 0 else ""

    @property
    def left(self) -> str:
        """ ", ETA 20 s"; "" where it is not known, or nothing is left."""
        return f", ETA {in_words(self.eta)}" if self.eta else ""


Listener = Callable[[Step], None]
_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("listeners", default=())


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell `listener` of every step of the work in this block, beside those that listen already.

    It is called within the work: it has to be quick, and what it raises stops the work.
    """
    token = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(token)


def _tell(step: Step) -> None:
    for listener in _listeners.get():
        listener(step)


def _safe(record: logging.LogRecord) -> bool:
    """What is logged is one line, whoever wrote the names in it and wherever it goes."""
    record.msg, record.args = printable(record.getMessage()), ()
    return True


log.addFilter(_safe)


@contextmanager
def progress(label: str, total: int, unit: str, done: int = 0) -> Iterator[Callable[..., None]]:
    """Report work of `total` units, `done` of them finished before (they do not count in the rate).

    Yields `advance(amount, message="")`. Where standard error is no terminal each call logs one
    line at level INFO to the logger "interp", which only the command line shows by default. Within
    another's time a bar is silent: the outer one tells how far the work has come.
    """
    if _shown.get():
        yield lambda amount, message="": None
        return
    token = _shown.set(True)
    try:
        with (
            _bar(label, total, unit, done)
            if sys.stderr.isatty()
            else _lines(label, total, unit, done) as advance,
            _told(advance, label, total, unit, done) as told,
        ):
            yield told
    finally:
        _shown.reset(token)


@contextmanager
def _told(
    advance: Callable[..., None], label: str, total: int, unit: str, done: int
) -> Iterator[Callable[..., None]]:
    """`advance`, of which the listeners are told too."""
    start, finished, said = time.monotonic(), float(done), ""
    due = start + OFTEN

    def tell(now: float) -> None:
        rate, eta = _pace(finished, float(total), done, now - start)
        _tell(Step(label, said, finished, float(total), unit, rate, eta, time.time()))

    def both(amount: float, message: str = "") -> None:
        nonlocal finished, said, due
        advance(amount, message)
        finished, said = finished + amount, message
        if (now := time.monotonic()) >= due:
            due = now + OFTEN
            tell(now)

    tell(start)
    try:
        yield both
    finally:
        tell(time.monotonic())


def _pace(finished: float, total: float, done: int, seconds: float) -> tuple[float, float | None]:
    """Units a second, and the seconds to the end; None where no unit is finished yet."""
    rate = (finished - done) / max(seconds, 1e-9)
    return rate, max(total - finished, 0.0) / rate if rate > 0 else None


def _rate(rate: float, unit: str) -> str:
    """No more exactly than it is known: "0.4 layers/s", "12,000 tokens/s"."""
    return f"{float(f'{rate:.2g}'):,.15g} {unit}/s"


@contextmanager
def _lines(label: str, total: int, unit: str, done: int) -> Iterator[Callable[..., None]]:
    start, finished = time.monotonic(), float(done)

    def advance(amount: float, message: str = "") -> None:
        nonlocal finished
        finished += amount
        pace = _pace(finished, float(total), done, time.monotonic() - start)
        log.info("%s", Step(label, message, finished, float(total), unit, *pace))

    yield advance


@contextmanager
def _bar(label: str, total: int, unit: str, done: int) -> Iterator[Callable[..., None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, Task, TextColumn, TimeRemainingColumn

    class Rate(TextColumn):
        def render(self, task: Task):  # type: ignore[no-untyped-def]
            speed = task.finished_speed or task.speed or 0.0
            return super().render(task).append(_rate(speed, unit))

    columns = (TextColumn("{task.description}"), BarColumn(), Rate("{task.percentage:.0f}%  "))
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(_literal(label), total=total, completed=done)

        def advance(amount: float, message: str = "") -> None:
            bar.update(task, advance=amount, description=_literal(f"{label} {message}".strip()))

        yield advance


def _literal(text: str) -> str:
    """A text that rich shows as it is: a model's name may look like its markup, `[red]`."""
    from rich.markup import escape

    return escape(printable(text))


@contextmanager
def waiting(label: str) -> Iterator[None]:
    """A spinner (a log line elsewhere) around work whose progress cannot be seen."""
    _tell(Step(label, time=time.time()))
    if sys.stderr.isatty():
        from rich.console import Console

        with Console(stderr=True).status(_literal(label)):
            yield
    else:
        log.info("%s", label)
        yield


def in_words(seconds: float) -> str:
    """An estimated time, no more exactly than it is known: '40 s', '6 min', '3 h'."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.0f} h"
