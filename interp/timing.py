"""What ours costs beside the bare work that it cannot do without: both in turns, in one process."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import NamedTuple

from .progress import progress


class Pair(NamedTuple):
    """Two things to time in turns."""

    what: str
    """What we do, as the docs call it."""
    against: str
    """The bare work."""
    page: str
    """The page of the docs that states the ratio."""
    ours: Callable[[], object]
    bare: Callable[[], object]


class Turn(NamedTuple):
    """Seconds of both, one right after the other: by the clock, and of the processor."""

    ours_s: float
    ours_cpu_s: float
    bare_s: float
    bare_cpu_s: float


class Ratio(NamedTuple):
    """Seconds of ours over those of the bare work, of several turns."""

    page: str
    what: str
    against: str
    ratio: float
    """Median, by the clock."""
    ratio_min: float
    ratio_max: float
    ratio_cpu: float
    """Median, of the processor's time of all threads, which other programs disturb less."""
    missing: str = ""
    """Why it could not be measured."""


def turns_of(pair: Pair, repeats: int) -> list[Turn]:
    """Times of a pair, after a turn that warms up; every other turn begins with the bare work."""
    from interp.kernels.bench import seconds

    taken = []
    with progress(pair.what, repeats + 1, "turns") as advance:
        for number in range(repeats + 1):
            works = (pair.ours, pair.bare)
            found = [seconds(work) for work in works[:: -1 if number % 2 else 1]]
            ours, bare = found[:: -1 if number % 2 else 1]
            taken.append(Turn(*ours, *bare))
            advance(1)
    return taken[1:]


def ratio_of(pair: Pair, turns: list[Turn]) -> Ratio:
    ratios = [turn.ours_s / turn.bare_s for turn in turns]
    of_processor = statistics.median(turn.ours_cpu_s / turn.bare_cpu_s for turn in turns)
    about = (pair.page, pair.what, pair.against)
    return Ratio(*about, statistics.median(ratios), min(ratios), max(ratios), of_processor)
