"""What a page has shown, remembered until it is offered: the figures, their sentences, the runs.

A page is one run of its script, in one thread: whoever shows it begins it with `begun`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from io import BytesIO

import pandas as pd
import pyarrow as pa
from plotly.graph_objects import Figure

from interp.plots import said, sentences
from interp.report import Section, report
from interp.runs.store import Run


@dataclass
class Seen:
    """What one page has shown so far."""

    figures: list[Figure] = field(default_factory=list)
    """Since the last offer."""
    runs: dict[str, Run] = field(default_factory=dict)
    """Of the whole page, by path."""


_seen: ContextVar[Seen | None] = ContextVar("seen", default=None)


@contextmanager
def begun() -> Iterator[None]:
    """Around a page, or a part of one: the outermost forgets what was shown before."""
    if _seen.get() is not None:
        yield
        return
    token = _seen.set(Seen())
    try:
        yield
    finally:
        _seen.reset(token)


def figure_shown(figure: Figure, shows: str = "", found: str = "") -> None:
    """A figure was shown, with the sentences above and below it."""
    if seen := _seen.get():
        own = sentences(figure)
        seen.figures.append(said(Figure(figure), shows or own[0], found or own[1]))


def run_shown(run: Run) -> None:
    """A page is about a run."""
    if seen := _seen.get():
        seen.runs[str(run.path)] = run


def run_on_page() -> Run | None:
    """The run that a page took last, if any."""
    seen = _seen.get()
    return next(reversed(seen.runs.values()), None) if seen else None


def taken(section: Section) -> tuple[Section, list[Run]]:
    """A section with the figures shown since the last one, and the page's runs."""
    seen = _seen.get() or Seen()
    figures, seen.figures = tuple(seen.figures), []
    return replace(section, figures=figures), list(seen.runs.values())


def html(section: Section, runs: Sequence[Run]) -> bytes:
    """A view as one file."""
    return report(section.title, [section], runs).encode()


def parquet(rows: pd.DataFrame) -> bytes:
    """Rows as a Parquet file; a column of values of several kinds is written as text."""
    file, held = BytesIO(), rows.rename(columns=str).copy()
    for name in held.select_dtypes(object):
        try:
            pa.array(held[name], from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            held[name] = held[name].map(str)
    held.to_parquet(file, index=False)
    return file.getvalue()
