"""q of any score in an atlas, from its rows seen some at a time (`chance.py` says what q is)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float

from .chance import Step, p_values


class Steps:
    """q as a step function of the score.

    Between two random scores p is the same and R(t) falls, so N p(t) / R(t) is least at the lowest
    row there: one step at most for each random score.
    """

    def __init__(self, random: Float[np.ndarray, " n"]) -> None:
        self._ends = np.unique(random[~np.isnan(random)])
        # of each interval up to one of the ends, and of that beyond the last
        self._p = np.array(p_values([*self._ends, np.inf], random))
        self._rows = np.zeros(len(self._p), int)
        self._lowest = np.full(len(self._p), np.inf)

    def add(self, rows: Float[np.ndarray, " rows"]) -> None:
        """Scores of further rows; NaN does not count."""
        scores = rows[~np.isnan(rows)]
        interval = np.searchsorted(self._ends, scores, side="left")
        self._rows += np.bincount(interval, minlength=len(self._rows))
        np.minimum.at(self._lowest, interval, scores)

    @property
    def steps(self) -> list[Step]:
        return list(self.table.itertuples(index=False, name=None))

    @property
    def table(self) -> pd.DataFrame:
        """`at` and `q`, which holds from there to the next."""
        at_least, there = np.cumsum(self._rows[::-1])[::-1], self._rows > 0
        rates = np.minimum.accumulate((self._rows.sum() * self._p)[there] / at_least[there])
        return pd.DataFrame({"at": self._lowest[there], "q": rates})
