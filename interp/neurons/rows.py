"""The rows of an atlas in SQL: what ranks them, and how they are counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..runs.query import query
from ..runs.store import Run

if TYPE_CHECKING:
    import pandas as pd

STATISTICS = ("z", "margin", "coherence", "kurtosis", "skewness", "norm")
"""Columns of an atlas that rank or describe a row; one of an earlier version may lack some."""
WORD = r"regexp_full_match(trim({}), '\p{{L}}{{3,}}')"
"""A token that is a word, or part of one, of at least three letters."""
SCORE = "z::DOUBLE + margin::DOUBLE AS score"
"""The score of a row's own first word."""
BINS = 60


def has_random(atlas: Run) -> bool:
    """Whether the atlas has random directions, and so p and q; an earlier version's has none, and
    no coherence."""
    return any(name.startswith("random/") for name in atlas.files)


def density(table: str, statistic: str, bins: int = BINS) -> pd.DataFrame:
    """A statistic's histogram in every layer and kind of a table; see `search.density`."""
    return query(
        f"""
        WITH bounds AS (
            SELECT quantile_cont({statistic}, 0.001) AS low,
                   quantile_cont({statistic}, 0.999) AS high
            FROM {table}
        ), binned AS (
            SELECT layer, kind, low, high, greatest(least(
                floor(({statistic} - low) / nullif(high - low, 0) * {bins}), {bins - 1}), 0) AS bin
            FROM {table}, bounds WHERE {statistic} IS NOT NULL
        )
        SELECT layer, kind, low + (coalesce(bin, 0) + 0.5) * (high - low) / {bins} AS value,
               count(*) AS count
        FROM binned GROUP BY ALL ORDER BY ALL
        """
    )
