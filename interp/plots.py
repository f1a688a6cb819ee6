"""What the figures share: colours, layout, and tokens made readable."""

from __future__ import annotations

import plotly.graph_objects as go

from .model.vocabulary import visible

BLUE, ORANGE, GREY = "#3b6fb6", "#d9822b", "#8a8f98"
DIVERGING = [[0, ORANGE], [0.5, "white"], [1, BLUE]]


def label(token: str) -> str:
    """A visible token for plotly, which reads a few HTML tags in labels."""
    return visible(token).replace("&", "&amp;").replace("<", "&lt;")


def laid_out(figure: go.Figure, title: str, height: int, legend: bool = False) -> go.Figure:
    return figure.update_layout(
        title={"text": title, "font": {"size": 15}},
        height=height,
        showlegend=legend,
        template="plotly_white",
        margin={"l": 10, "r": 10, "t": 60, "b": 10},
    )
