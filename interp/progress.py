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
from dataclasses import dataclass, replace
from threading import Timer

from .plain_text import printable

log = logging.getLogger("interp")
OFTEN = 0.2
"""Seconds between two steps that listeners are told of, at least; the last one is always told."""
SOON = 2.0
"""Seconds after which a log says that work has begun, where no unit of it is finished by then."""
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
    workers: int = 0
    """That are alive beside this process; 0 where there are none."""
    again: int = 0
    """Parts that are made again, since a worker died."""

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
        return f"{what} {self.counted}{rate}{self.left}{self.crew}"

    @property
    def counted(self) -> str:
        """ "12/30 layers" """
        return f"{self.done:,.0f}/{self.total:,.0f} {self.unit}" if self.total > 0 else ""

    @property
    def left(self) -> str:
        """ ", ETA 20 s"; "" where it is not known, or nothing is left."""
        return f", ETA {in_words(self.eta)}" if self.eta else ""

    @property
    def crew(self) -> str:
        """ ", 2 workers, 1 part made again"; "" where this process works alone."""
        again = f", {self.again} part{'s'[: self.again != 1]} made again" if self.again else ""
        alive = f", {self.workers} worker{'s'[: self.workers != 1]}" if self.workers else ""
        return alive + again


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


class Advance:
    """Hears how far some work has come. This one tells nobody."""

    def __call__(self, amount: float, message: str = "") -> None:
        """So many units more are finished."""

    def made_by(self, workers: int, again: int) -> None:
        """So many workers beside this process are alive, and so many parts are made again, since a
        worker died; it is shown with the units."""


@contextmanager
def progress(label: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
    """Report work of `total` units, `done` of them finished before (they do not count in the rate).

    Where standard error is no terminal each call of what it yields logs one line at level INFO to
    the logger "interp", which only the command line shows by default; so does the beginning, where
    the first unit takes longer than SOON. Within another's time a bar is silent: the outer one
    tells how far the work has come.
    """
    if _shown.get():
        yield Advance()
        return
    token, begun = _shown.set(True), Step(label, "", done, total, unit)
    try:
        with _bar(begun) if sys.stderr.isatty() else _lines(begun) as show:
            told = _Told(begun, show)
            told.tell()
            try:
                yield told
            finally:
                told.tell()
    finally:
        _shown.reset(token)


class _Told(Advance):
    """Shows each step; the listeners are told too.

    Args:
        begun: the step before anything is done.
    """

    def __init__(self, begun: Step, show: Callable[[Step], None]) -> None:
        self._begun, self._step, self._show = begun, begun, show
        self._start = time.monotonic()
        self._due = self._start + OFTEN

    def __call__(self, amount: float, message: str = "") -> None:
        self._step = replace(self._step, done=self._step.done + amount, message=message)
        self._show(self._now())
        if (now := time.monotonic()) >= self._due:
            self._due = now + OFTEN
            self.tell()

    def made_by(self, workers: int, again: int) -> None:
        told, self._step = self._step, replace(self._step, workers=workers, again=again)
        if again != told.again:  # the next unit may take long
            self.tell()

    def tell(self) -> None:
        _tell(self._now())

    def _now(self) -> Step:
        step, passed = self._step, time.monotonic() - self._start
        rate, eta = _pace(step.done, step.total, self._begun.done, passed)
        return replace(step, rate=rate, eta=eta, time=time.time())


def _pace(finished: float, total: float, done: float, seconds: float) -> tuple[float, float | None]:
    """Units a second, and the seconds to the end; None where no unit is finished yet."""
    rate = (finished - done) / max(seconds, 1e-9)
    return rate, max(total - finished, 0.0) / rate if rate > 0 else None


def _rate(rate: float, unit: str) -> str:
    """No more exactly than it is known: "0.4 layers/s", "12,000 tokens/s"."""
    return f"{float(f'{rate:.2g}'):,.15g} {unit}/s"


@contextmanager
def _lines(begun: Step) -> Iterator[Callable[[Step], None]]:
    soon = Timer(SOON, log.info, ["%s", begun])
    soon.daemon = True
    soon.start()

    def show(step: Step) -> None:
        soon.cancel()
        log.info("%s", step)

    try:
        yield show
    finally:
        soon.cancel()


@contextmanager
def _bar(begun: Step) -> Iterator[Callable[[Step], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, Task, TextColumn, TimeRemainingColumn

    class Rate(TextColumn):
        def render(self, task: Task):  # type: ignore[no-untyped-def]
            speed = task.finished_speed or task.speed or 0.0
            return super().render(task).append(_rate(speed, begun.unit))

    columns = (TextColumn("{task.description}"), BarColumn(), Rate("{task.percentage:.0f}%  "))
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(_literal(begun.label), total=begun.total, completed=int(begun.done))

        def show(step: Step) -> None:
            said = f"{step.label} {step.message}".strip() + step.crew
            bar.update(task, completed=step.done, description=_literal(said))

        yield show


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
