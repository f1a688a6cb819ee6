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

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float

if TYPE_CHECKING:
    import numpy.typing as npt


def p_values(
    scores: npt.ArrayLike, random: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " scores"]:
    """The share of random scores at or above each score; NaN for a NaN."""
    values, null = np.asarray(scores, float), np.sort(random[~np.isnan(random)])
    above = len(null) - np.searchsorted(null, values, side="left")
    return np.where(np.isnan(values), np.nan, (1 + above) / (1 + len(null)))


def q_values(
    scores: npt.ArrayLike, rows: Float[np.ndarray, " rows"], random: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " scores"]:
    """The false discovery rate of choosing all `rows` (the scores of a whole atlas) that have at
    least each score; NaN for a NaN."""
    values, ordered = np.asarray(scores, float), np.sort(rows[~np.isnan(rows)])
    at_least = len(ordered) - np.searchsorted(ordered, ordered, side="left")
    rates = np.minimum.accumulate(len(ordered) * p_values(ordered, random) / at_least)
    place = np.searchsorted(ordered, values, side="right") - 1
    return np.where(np.isnan(values), np.nan, np.minimum(1.0, np.append(rates, 1.0)[place]))


class Steps:
    """`q_values` of many rows, seen some at a time: q is a step function of the score.

    Between two random scores p is the same and R(t) falls, so N p(t) / R(t) is least at the lowest
    row there: one step at most for each random score.
    """

    def __init__(self, random: Float[np.ndarray, " n"]) -> None:
        self._ends = np.unique(random[~np.isnan(random)])
        # of each interval up to one of the ends, and of that beyond the last
        self._p = p_values(np.append(self._ends, np.inf), random)
        self._rows = np.zeros(len(self._p), int)
        self._lowest = np.full(len(self._p), np.inf)

    def add(self, rows: Float[np.ndarray, " rows"]) -> None:
        """Scores of further rows; NaN does not count."""
        scores = rows[~np.isnan(rows)]
        interval = np.searchsorted(self._ends, scores, side="left")
        self._rows += np.bincount(interval, minlength=len(self._rows))
        np.minimum.at(self._lowest, interval, scores)

    @property
    def table(self) -> pd.DataFrame:
        """`at` and `q`, which holds from there to the next."""
        at_least, there = np.cumsum(self._rows[::-1])[::-1], self._rows > 0
        rates = np.minimum.accumulate((self._rows.sum() * self._p)[there] / at_least[there])
        return pd.DataFrame({"at": self._lowest[there], "q": rates})


def q_by_steps(scores: npt.ArrayLike, steps: pd.DataFrame) -> Float[np.ndarray, " scores"]:
    """`q_values` by `Steps.table`."""
    values = np.asarray(scores, float)
    place = np.searchsorted(steps["at"].to_numpy(float), values, side="right") - 1
    rates = np.minimum(1.0, np.append(steps["q"].to_numpy(float), 1.0)[place])
    return np.where(np.isnan(values), np.nan, rates)
