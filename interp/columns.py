"""What the columns of tables mean: words, a format and a sentence for each name.

One list for the pages and the reports. The names are those of the stored tables; who reads a table
in a notebook sees them, who reads it on a page sees the words.
"""

from __future__ import annotations

from typing import NamedTuple


class Column(NamedTuple):
    """How a column is shown."""

    words: str
    help: str = ""
    """What it means, with its unit: one or two sentences."""
    digits: str = ".3g"
    """How a number is written; `.1%` for shares."""


COLUMNS: dict[str, Column] = {}
"""By the name in the table."""


def words(name: object) -> str:
    """A column's name in words."""
    known = COLUMNS.get(str(name))
    return known.words if known else str(name).replace("_", " ")


def meaning(name: object) -> str:
    """What a column means; "" where nothing is known."""
    known = COLUMNS.get(str(name))
    return known.help if known else ""
