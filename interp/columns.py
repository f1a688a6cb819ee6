"""What the columns of tables mean: words, a sentence and a format for each name.

One list for the pages and the reports. Tables keep their short names, for notebooks; a page shows
the words, and the sentence on hover. A name that two analyses use otherwise stands as
`analysis.name` or `analysis.study.name`.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from numbers import Integral, Real
from typing import Any, NamedTuple

from .columns_known import KNOWN
from .model.vocabulary import visible
from .plain_text import printable


class Column(NamedTuple):
    """How a column is shown."""

    words: str
    help: str = ""
    """What it means, with its unit."""
    kind: str = ""
    """`share` (0 to 1, shown in per cent), `token`, `bytes`, or significant digits."""


def column(name: object, of: str = "") -> Column:
    """A column by its name in a table.

    Args:
        of: the study whose table it is, `neurons.tars`, or its analysis.
    """
    own = str(name)
    for owner in (f"{of}.", f"{of.partition('.')[0]}.", ""):
        if known := KNOWN.get(owner + own):
            return Column(*known)
    for ending, words in (("_low", "low end"), ("_high", "high end")):
        if own.endswith(ending) and len(own) > len(ending):
            whole = column(own.removesuffix(ending), of)
            about = f"The {words} of the 95 % interval of: {whole.words}."
            return Column(f"{whole.words}, {words}", about, whole.kind)
    return Column(own.replace("_", " "))


def cell(value: Any, kind: str) -> str:
    """A value as text, a number rounded to what it means."""
    if value is None or (isinstance(value, Real) and value != value):
        return "–"
    if isinstance(value, Real) and not isinstance(value, bool):
        return number(value, kind)
    if isinstance(value, str):
        return visible(value) if kind == "token" else printable(value)
    if isinstance(value, Iterable):
        return "  ".join(cell(each, kind or "token") for each in islice(value, 12))
    return printable(str(value))


def number(value: Real | float, kind: str) -> str:
    """A number as text."""
    size = float(value)
    if kind == "share":
        return f"{size:.1%}"
    if kind == "bytes":
        return f"{size / 1e6:,.1f} MB"
    if isinstance(value, Integral):
        return f"{int(value):,}"
    return f"{size:.{kind if kind.isdecimal() else 4}g}"
