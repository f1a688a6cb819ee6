"""Figure of concept removal: what falls and what it costs, by the number of edits."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .common import BLUE, GREY, ORANGE, label, laid_out


def removal_curves(effects: pd.DataFrame, concept: str) -> go.Figure:
    """One concept of `neurons.tars`' effects table: log probabilities and divergence by edits."""
    rows = effects[effects["concept"] == concept].sort_values("edits")
    neighbour = str(rows["neighbour"].iloc[0])
    figure = make_subplots(1, 2, subplot_titles=["log probability", "median KL on ordinary text"])
    for neurons, dash in (("closest", "solid"), ("matched", "dash"), ("random", "dot")):
        part = rows[rows["neurons"] == neurons]
        what = "" if neurons == "closest" else f", {neurons} neurons"
        lines = [
            (f"{label(concept)}{what}", part["logprob"], ORANGE, 1),
            (f"{label(neighbour)}{what}", part["neighbour_logprob"], BLUE, 1),
            (f"KL{what}", part["kl_median"], GREY, 2),
        ]
        for name, values, colour, column in lines:
            figure.add_scatter(
                x=part["edits"], y=values, name=name, mode="lines+markers",
                line={"color": colour, "dash": dash}, row=1, col=column,
            )  # fmt: skip
    figure.update_xaxes(title="neurons turned")
    laid_out(figure, f"Removing '{label(concept)}'", height=400)
    return figure.update_layout(showlegend=True, legend={"orientation": "h", "y": -0.25})
