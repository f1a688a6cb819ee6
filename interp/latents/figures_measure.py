"""Figures of `saes measure`: measures over L0, the loss of the replaced model."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ..plots import BLUE, GREY, Figures, laid_out
from ..runs.store import Run

TRADE = {"fvu": "FVU", "loss_recovered": "loss recovered"}
"""Measures that are shown over L0."""
BELOW = {"orientation": "h", "y": -0.25}


def over_l0(measures: pd.DataFrame, measure: str, title: str) -> go.Figure:
    """One measure of every SAE over its L0, with both intervals."""
    own, l0 = (measures[measures["measure"] == name].set_index("sae") for name in (measure, "l0"))
    l0 = l0.loc[own.index]
    figure = go.Figure(
        go.Scatter(
            x=l0["value"], y=own["value"], text=own.index, mode="markers+text",
            textposition="top center", marker={"color": BLUE, "size": 9},
            error_x=bars(l0), error_y=bars(own),
            hovertemplate="%{text}<br>L0 %{x:.1f}, %{y:.4f}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_xaxes(title="L0, active latents a token")
    figure.update_yaxes(title=title)
    return laid_out(figure, f"{title} over L0, 95 % intervals over documents", height=420)


def loss_bars(losses: pd.DataFrame) -> go.Figure:
    """Cross-entropy of the model with each thing in the site's place."""
    names = losses["sae"].where(losses["sae"] != "", losses["setting"])
    colours = [BLUE if sae else GREY for sae in losses["sae"]]
    figure = go.Figure(
        go.Bar(
            x=names, y=losses["ce"], marker_color=colours, error_y=bars(losses, "ce"),
            hovertemplate="%{x}: %{y:.4f}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_yaxes(title="cross-entropy, nats a token")
    return laid_out(figure, "The loss with the site replaced", height=420)


def bars(rows: pd.DataFrame, value: str = "value") -> dict[str, Any]:
    """Plotly's error bars of a table's intervals."""
    above, below = rows["high"] - rows[value], rows[value] - rows["low"]
    return {"array": above, "arrayminus": below, "thickness": 1}


def of_run(run: Run) -> Figures:
    """The figures of a run, by name."""
    measures = run.table("measures")
    there = set(measures["measure"])
    figures: Figures = {
        name.replace("_", "-"): partial(over_l0, measures, name, title)
        for name, title in TRADE.items()
        if name in there
    }
    if run.has("losses"):
        figures["losses"] = partial(loss_bars, run.table("losses"))
    return figures
