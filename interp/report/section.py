"""The pieces of a report: a list of sections is all that a report is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Section:
    """What one view or one kept thing shows. Every text may be anybody's: it is shown as it is."""

    title: str
    shows: str = ""
    """The sentence above: what the pictures show, and what would be a surprise."""
    figures: tuple[go.Figure, ...] = ()
    """Each with its own sentences, where it has them (`plots.said`)."""
    found: str = ""
    """The sentence below: what was found."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What it is, by name: source, model, note."""
    rows: pd.DataFrame | None = None
    """A table; of a long one the first rows show, and the file holds the rest as CSV."""
    of: str = ""
    """The study whose table it is: what its columns mean (`columns.column`)."""
    total: int | None = None
    """Rows that the whole table has, where `rows` is its beginning."""
    command: str = ""
    """A line for a shell that shows it again."""
    notebook: str = ""
