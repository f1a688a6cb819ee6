"""Tables of a report: their first rows as markup, all that is there as CSV."""

from __future__ import annotations

import gzip
from numbers import Real
from typing import TYPE_CHECKING, Any

from ..columns import cell, column
from ..webpage import text
from .foot import text_lines

if TYPE_CHECKING:
    import pandas as pd

ROWS = 200
"""Rows of a table that a report shows."""
KEPT = 20_000
"""Rows of a table that a report holds as CSV, at most."""
HEAVIEST = 400_000
"""Bytes of that CSV once packed; of a heavier table fewer rows are held."""


def markup(rows: pd.DataFrame, of: str = "") -> str:
    """The first `ROWS` rows; a column's name says on hover what it means.

    Args:
        of: the study whose table it is.
    """
    about = [column(name, of) for name in rows.columns]
    heads = "".join(
        f'<th scope="col" title="{text(each.help or name)}">{text(each.words)}</th>'
        for each, name in zip(about, rows.columns, strict=True)
    )
    kinds = [each.kind for each in about]
    body = "".join(
        f"<tr>{''.join(map(_cell, row, kinds))}</tr>"
        for row in rows.head(ROWS).itertuples(index=False, name=None)
    )
    return f'<div class="wide" tabindex="0"><table><tr>{heads}</tr>{body}</table></div>'


def _cell(value: Any, kind: str) -> str:
    if kind == "lines" and isinstance(value, str):
        return f'<td class="lines">{text_lines(value)}</td>'
    side = ' class="number"' if isinstance(value, Real) and not isinstance(value, bool) else ""
    return f"<td{side}>{text(cell(value, kind))}</td>"


def csv(rows: pd.DataFrame) -> tuple[str, int]:
    """The rows that a report holds, as CSV, and how many they are: as many as its first ones let
    expect to fit."""
    sample = rows.head(ROWS).to_csv(index=False)
    each = len(gzip.compress(sample.encode(), 5)) / max(min(len(rows), ROWS), 1)
    kept = min(len(rows), KEPT, max(ROWS, int(HEAVIEST / each)))
    return rows.head(kept).to_csv(index=False), kept
