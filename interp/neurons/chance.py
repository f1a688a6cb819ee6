"""How often a direction that means nothing scores as much: p and q beside every score.

An atlas holds random directions beside the neurons, decoded in the same pass. Each has a first
token too, and so a score (z + margin) and a coherence.

p is the share of the random directions, both signs counted, that score at least as much with
whatever word is best for them: (1 + how many do) / (1 + how many there are). So a search for any
word is covered. The tail is the empirical one: beyond the highest random score p stays at
1 / (1 + n), and no curve is fitted to it.

q is for the choice among all rows of the atlas (Benjamini & Hochberg): of the rows that score at
least as much, the share that random directions would account for. With N rows, R of them at or
above t,

    q(s) = min over t <= s of  N p(t) / R(t),  at most 1

z, margin and coherence do not depend on a vector's length, so the random directions of all kinds
are one sample.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from math import isnan, nan

Step = tuple[float, float]
"""A score, and the q that holds from there to the next step's."""


def p_values(scores: Iterable[float], random: Iterable[float]) -> list[float]:
    """The share of random scores at or above each score; NaN for a NaN, and a random NaN does not
    count."""
    null = sorted(score for score in random if not isnan(score))
    n = len(null)
    return [nan if isnan(x) else (1 + n - bisect_left(null, x)) / (1 + n) for x in scores]


def q_by_steps(scores: Iterable[float], steps: Sequence[Step]) -> list[float]:
    """The false discovery rate of choosing all rows of an atlas that have at least each score, by
    its steps (`chance_steps.py`); NaN for a NaN."""
    at = [score for score, _ in steps]
    # below all rows, 1: all of them are chosen, and random ones are as many
    rates = [1.0, *(min(1.0, q) for _, q in steps)]
    return [nan if isnan(x) else rates[bisect_right(at, x)] for x in scores]
