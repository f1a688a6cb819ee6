"""Tables of a page: their columns in words, explained on hover, numbers rounded."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from interp.columns import Column, column
from interp.model.vocabulary import visible
from interp.plain_text import printable

HEIGHT = 320
"""Pixels; a longer table scrolls inside itself."""
FORMATS = {"share": "percent", "bytes": "bytes"}
"""Streamlit's formats of kinds of numbers."""


def shown_table(rows: pd.DataFrame, key: str, of: str = "", **how: Any) -> Any:
    """A table on a page; returns what `st.dataframe` does.

    Args:
        key: names the table on its page.
        of: the study whose table it is: some names mean another thing elsewhere.
        how: more for `st.dataframe`, such as a selection.
    """
    about = {str(name): column(name, of) for name in rows.columns}
    made = pd.DataFrame(
        {str(name): _readable(rows[name], about[str(name)]) for name in rows.columns}
    )
    return st.dataframe(
        made,
        key=key,
        hide_index=True,
        height=how.pop("height", min(38 + 35 * max(len(made), 1), HEIGHT)),
        column_config={name: _config(made[name], name, each) for name, each in about.items()},
        **how,
    )


def _readable(values: pd.Series, about: Column) -> pd.Series:
    """Tokens with their blanks shown, every text without characters that hide."""
    if values.dtype.kind in "iufb":
        return values

    def read(value: Any) -> Any:
        if isinstance(value, str):
            return visible(value) if about.kind == "token" else printable(value)
        if hasattr(value, "__iter__"):
            return [read(each) for each in value]
        return value

    return values.map(read)


def _config(values: pd.Series, name: str, about: Column) -> Any:
    help_ = ". ".join(filter(None, [about.help.rstrip("."), f"In the table: {name}"]))
    label = printable(about.words)
    if values.dtype.kind in "iuf":
        whole = values.dtype.kind in "iu" and about.kind != "bytes"
        digits = about.kind if about.kind.isdecimal() else "4"
        format_ = FORMATS.get(about.kind) or (None if whole else f"%.{digits}g")
        return st.column_config.NumberColumn(label, help=printable(help_), format=format_)
    return st.column_config.Column(label, help=printable(help_))
