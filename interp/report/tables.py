"""Tables of a report: their first rows as markup, all that is there as CSV."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from itertools import islice
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from ..columns import COLUMNS, meaning, words
from ..model.vocabulary import visible
from ..webpage import text

if TYPE_CHECKING:
    import pandas as pd

ROWS = 200
"""Rows of a table that a report shows."""
KEPT = 20_000
"""Rows of a table that a report holds as CSV, at most."""
HEAVIEST = 400_000
"""Bytes of that CSV once packed; of a heavier table fewer rows are held."""


def markup(rows: pd.DataFrame) -> str:
    """The first `ROWS` rows; a column's name says on hover what it means."""
    heads = "".join(
        f'<th scope="col" title="{text(meaning(name) or name)}">{text(words(name))}</th>'
        for name in rows.columns
    )
    digits = [_digits(name) for name in rows.columns]
    body = "".join(
        f"<tr>{''.join(map(_cell, row, digits))}</tr>"
        for row in rows.head(ROWS).itertuples(index=False, name=None)
    )
    return f'<div class="wide" tabindex="0"><table><tr>{heads}</tr>{body}</table></div>'


def csv(rows: pd.DataFrame) -> tuple[str, int]:
    """The rows that a report holds, as CSV, and how many they are."""
    kept = min(len(rows), KEPT)
    while True:
        made = rows.head(kept).to_csv(index=False)
        if kept <= ROWS or len(gzip.compress(made.encode(), 5)) <= HEAVIEST:
            return made, kept
        kept = max(ROWS, kept // 2)


def _digits(name: object) -> str:
    known = COLUMNS.get(str(name))
    return known.digits if known else ".4g"


def _cell(value: Any, digits: str) -> str:
    if isinstance(value, Real) and not isinstance(value, bool):
        return f'<td class="number">{_number(value, digits)}</td>'
    return f"<td>{text(_words(value))}</td>"


def _number(value: Real, digits: str) -> str:
    if value != value:
        return "–"
    if isinstance(value, Integral) and not digits.endswith("%"):
        return str(int(value))
    return format(float(value), digits)


def _words(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Iterable):
        return "  ".join(_words(each) for each in islice(value, 12))
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
