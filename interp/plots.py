"""What the figures share: colours, layout, and tokens made readable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from .model.vocabulary import visible

if TYPE_CHECKING:
    import pandas as pd

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


def heat_map(
    grid: pd.DataFrame, low: float, high: float, hover: str, colours: Any = "Blues", **trace: Any
) -> go.Figure:
    """A table of numbers as a heat map, its columns along x and its rows along y."""
    scale = {"zmin": low, "zmax": high, "colorscale": colours}
    shown = go.Heatmap(x=grid.columns, y=grid.index, z=grid.to_numpy(), **scale, **trace)
    return go.Figure(shown.update(hovertemplate=f"{hover}<extra></extra>"))
