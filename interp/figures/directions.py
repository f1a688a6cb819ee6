"""Figures of directions at work: next tokens before and after an edit, cosines of a set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import plotly.graph_objects as go

from .common import BLUE, GREY, ORANGE, label, laid_out

if TYPE_CHECKING:
    from torch import Tensor


def next_tokens(rows: pd.DataFrame) -> go.Figure:
    """Probabilities of the next token, `before` and `after` an edit (columns with `token`)."""
    names = [f"{i + 1}  {label(token)}" for i, token in enumerate(rows["token"])]
    figure = go.Figure()
    for column, colour in (("before", GREY), ("after", ORANGE)):
        figure.add_bar(y=names, x=rows[column], orientation="h", name=column, marker_color=colour)
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(title="probability")
    laid_out(figure, "The next token", height=60 + 34 * max(len(rows), 4))
    return figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.08})


def cosine_map(cosine: Tensor, rows: list[str], columns: list[str]) -> go.Figure:
    """Cosines [n, m] of two sets of directions."""
    figure = go.Figure(
        go.Heatmap(
            z=cosine.numpy(),
            x=[label(name) for name in columns],
            y=[label(name) for name in rows],
            zmin=-1,
            zmax=1,
            colorscale=[[0, ORANGE], [0.5, "white"], [1, BLUE]],
            hovertemplate="%{y}<br>%{x}<br>cosine %{z:.3f}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed", automargin=True)
    return laid_out(figure, "Cosines", height=min(160 + 24 * len(rows), 700))
