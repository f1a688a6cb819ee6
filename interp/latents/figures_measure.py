"""Figures of `saes measure`: measures over L0, the replaced model's loss, SAEBench."""

from __future__ import annotations

from functools import partial
from math import inf
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ..plots import BLUE, GREY, ORANGE, Figures, laid_out
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


def probing_lines(probing: pd.DataFrame) -> go.Figure:
    """Accuracy over the number of latents, of each SAE and of the activation's own coordinates."""
    mean = probing[probing["class"] == ""]
    figure = go.Figure()
    for name, part in mean[mean["k"] > 0].groupby("sae", sort=False):
        line = {"color": GREY, "dash": "dot"} if not name else {}
        figure.add_scatter(
            x=part["k"].astype(str), y=part["accuracy"], name=name or "activations", line=line,
            error_y=bars(part, "accuracy", "accuracy_"),
        )  # fmt: skip
    whole = float(mean[mean["k"] == 0]["accuracy"].iloc[0])
    figure.add_hline(whole, line={"color": GREY}, annotation_text="all of the activation")
    figure.add_hline(0.5, line={"color": GREY, "dash": "dash"}, annotation_text="chance")
    figure.update_xaxes(title="latents, or coordinates, that a probe reads", type="category")
    figure.update_yaxes(title="accuracy")
    unit = mean["unit"].iloc[0]
    title = f"Sparse probing, 95 % intervals over {unit}s"
    return laid_out(figure, title, height=420, legend=True).update_layout(legend=BELOW)


def perturbation_lines(perturbation: pd.DataFrame) -> go.Figure:
    """The score over the number of latents that are set to 0."""
    mean = perturbation[perturbation["class"] == ""]
    figure = go.Figure()
    for name, part in mean.groupby("sae", sort=False):
        figure.add_scatter(
            x=part["n"].astype(str), y=part["score"], name=str(name),
            error_y=bars(part, "score", "score_"),
        )  # fmt: skip
    figure.update_xaxes(title="latents set to 0", type="category")
    figure.update_yaxes(title="accuracy lost by the own probe, less by the others")
    title = f"Targeted probe perturbation, 95 % intervals over {mean['unit'].iloc[0]}s"
    return laid_out(figure, title, height=420, legend=True).update_layout(legend=BELOW)


def absorption_bars(absorption: pd.DataFrame) -> go.Figure:
    """Both rates of every SAE, their means over letters."""
    mean = absorption[absorption["letter"] == ""]
    figure = go.Figure()
    for rate, name, colour in (("fraction", "fraction", BLUE), ("full", "full", ORANGE)):
        figure.add_bar(
            x=mean["sae"], y=mean[rate], name=name, marker_color=colour,
            error_y=bars(mean, rate, f"{rate}_"),
        )  # fmt: skip
    figure.update_yaxes(title="share of the words that the letter's probe finds")
    title = "Absorption of first letters, 95 % intervals over letters"
    return laid_out(figure, title, height=420, legend=True).update_layout(legend=BELOW)


def bars(rows: pd.DataFrame, value: str = "value", ends: str = "") -> dict[str, Any]:
    """Plotly's error bars of a table's intervals, whose columns begin with `ends`. Infinite ones
    are not drawn."""
    above, below = rows[f"{ends}high"] - rows[value], rows[value] - rows[f"{ends}low"]
    return {
        "array": above.where(above < inf),
        "arrayminus": below.where(below < inf),
        "thickness": 1,
    }


BENCHMARKS = {
    "probing": probing_lines,
    "perturbation": perturbation_lines,
    "absorption": absorption_bars,
}
"""Tables of SAEBench's tests, and how each is drawn."""


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
    for name, draw in BENCHMARKS.items():
        if run.has(name) and len(table := run.table(name)):
            figures[name] = partial(draw, table)
    return figures
