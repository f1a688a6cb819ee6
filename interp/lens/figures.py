"""Pictures of lenses: a prompt's grid, halves of a fit, a training, lenses by layer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd
import plotly.graph_objects as go

from ..model.vocabulary import visible
from ..plain_text import printable
from ..plots import (
    BLUE,
    GREY,
    ORANGE,
    SEQUENTIAL,
    WARMING,
    Figures,
    interval_bars,
    label,
    laid_out,
    literal,
    row_at_most,
    said,
)

if TYPE_CHECKING:
    from ..runs.store import Run

KL = "KL of the model's distribution from the lens', nats"
SHADES = {"p": "probability", "entropy": "entropy, nats", "kl": KL}
MEASURES = {
    "kl": KL,
    "agreement": "likeliest token is the model's",
    "following": "likeliest token is the text's next",
}
COLOURS = (GREY, ORANGE, BLUE, "#5a9e6f", "#8c5aa8", "#b0455a")


def grid(cells: pd.DataFrame, shade: str = "p") -> go.Figure:
    """Layers by positions: the likeliest token in each cell, coloured by p, entropy or kl."""
    table = cells.pivot(index="layer", columns="position", values=shade)
    likeliest = cells.pivot(index="layer", columns="position", values="said").map(label)
    tops = cells.assign(
        more=[
            "<br>".join(f"{label(t)}  {p:.3f}" for t, p in zip(ts, ps, strict=True))
            for ts, ps in zip(cells["tops"], cells["probabilities"], strict=True)
        ]
    ).pivot(index="layer", columns="position", values="more")
    tokens = cells.drop_duplicates("position").sort_values("position")
    figure = go.Figure(
        go.Heatmap(
            z=table.to_numpy(),
            x=list(table.columns),
            y=[str(layer) for layer in table.index],
            text=likeliest.to_numpy(),
            texttemplate="%{text}",
            customdata=tops.to_numpy(),
            hovertemplate="layer %{y}, position %{x}<br>%{customdata}<extra>%{z:.3f}</extra>",
            colorscale=SEQUENTIAL if shade == "p" else WARMING,
            colorbar={"title": SHADES[shade]},
        )
    )
    figure.update_xaxes(
        tickvals=tokens["position"], ticktext=list(map(label, tokens["token"])), side="top"
    )
    figure.update_yaxes(title="after layer", type="category")
    laid_out(figure, "", height=120 + 24 * len(table))
    return said(figure, GRID[shade], _settled(cells))


GRID = {
    "p": "Each cell is the likeliest token after a layer, strong in colour where the lens is "
    "sure. The usual picture is noise below and the answer in the last layers. A surprise would be "
    "the answer in an early layer, or an answer that is there and goes again.",
    "entropy": "Each cell is the likeliest token after a layer, strong in colour where it is "
    "undecided (entropy in nats). A surprise would be a strong colour in the last layers.",
    "kl": "Each cell is the likeliest token after a layer, strong in colour where it is far from "
    "the model's own answer (KL in nats). A surprise would be a weak colour below a strong one: "
    "right, and then wrong again.",
}
"""The sentences above."""


def _settled(cells: pd.DataFrame) -> str:
    """From which of the lens' layers on the last position shown says what the model says."""
    at = int(cells["position"].max())
    last = cells[cells["position"] == at].sort_values("layer")
    answer = str(last["said"].iloc[-1])
    other = last[last["said"] != answer]["layer"]
    same = last[last["layer"] > other.max()] if len(other) else last
    first = int(same["layer"].min())
    sure = float(last["p"].iloc[-1])
    return (
        f"After {visible(str(last['token'].iloc[0]))} (position {at}), the last shown, the model "
        f"says {visible(answer)} (probability {sure:.2g}); the lens says so from layer {first} on."
    )


def column(cells: pd.DataFrame, value: str) -> go.Figure:
    """One position's entropy or kl by layer."""
    figure = go.Figure(
        go.Scatter(
            x=cells["layer"],
            y=cells[value],
            text=list(map(label, cells["said"])),
            mode="lines+markers",
            hovertemplate="layer %{x}: %{text}, %{y:.3f}<extra></extra>",
        )
    )
    figure.update_xaxes(title="after layer")
    figure.update_yaxes(title=SHADES[value], rangemode="tozero")
    laid_out(figure, "", height=300)
    above = {
        "entropy": "How undecided the lens is at this position. A surprise would be a rise in the "
        "last layers.",
        "kl": "How far the lens is from the model's own answer. A surprise would be a fall in an "
        "early layer: the answer would be there long before the end.",
    }
    steps = cells.set_index("layer")[value].dropna().sort_index().diff().dropna()
    found = ""
    if len(steps):
        at, least = int(steps.index[int(steps.to_numpy().argmin())]), float(steps.min())
        found = "It falls at no layer."
        if least < 0:
            found = f"The largest fall is at layer {at}: {-least:.2g} nats."
    return said(figure, above.get(value, ""), found)


def agreement(layers: pd.DataFrame) -> go.Figure:
    """How alike the maps of the two halves of the prompts are, by layer."""
    figure = go.Figure(go.Scatter(x=layers["layer"], y=layers["agreement"], mode="lines+markers"))
    figure.update_xaxes(title="layer")
    figure.update_yaxes(title="cosine of the two halves' J", range=[0, 1.02])
    laid_out(figure, "Maps from two halves of the prompts", height=320)
    above = (
        "The map of each layer, fitted twice, on even and on odd passages: 1 means that more text "
        "would change little. A surprise would be a dip in a late layer."
    )
    if layers["agreement"].isna().all():
        return said(figure, above)
    worst = row_at_most(layers, -layers["agreement"])
    found = (
        f"The least is {worst['agreement']:.2f} at layer {int(worst['layer'])}, the mean "
        f"{layers['agreement'].mean():.2f}."
    )
    return said(figure, above, found)


def training(curve: pd.DataFrame) -> go.Figure:
    """KL of the model's distribution from a tuned lens', step by step."""
    figure = go.Figure(go.Scatter(x=curve["step"], y=curve["kl"], mode="lines"))
    figure.update_xaxes(title="step")
    figure.update_yaxes(title=f"{KL}, mean over layers", rangemode="tozero")
    laid_out(figure, "Training", height=320)
    above = (
        "The loss of the training, step by step; it should fall and flatten. A surprise would be "
        "a line that still falls at the end: more steps would help."
    )
    if curve.empty:
        return said(figure, above)
    ends = curve["kl"].iloc[0], curve["kl"].iloc[-1]
    found = (
        f"It goes from {ends[0]:.2f} to {ends[1]:.2f} nats in {int(curve['step'].max()):,} steps."
    )
    return said(figure, above, found)


def before_and_after(layers: pd.DataFrame) -> go.Figure:
    """KL of the model's distribution from the logit lens' and from the tuned one's, on held-out
    passages."""
    figure = go.Figure()
    for name, values, colour in (("logit lens", "logit_kl", GREY), ("tuned", "kl", ORANGE)):
        figure.add_scatter(
            x=layers["layer"], y=layers[values], name=name, mode="lines+markers", line_color=colour
        )
    figure.update_xaxes(title="after layer")
    figure.update_yaxes(title=KL, rangemode="tozero")
    laid_out(figure, "On passages of other documents", height=320, legend=True)
    above = (
        "How far each lens is from the model's own answer after every layer; 0 is the model. A "
        "surprise would be a layer where the tuned lens is the worse one."
    )
    both = layers.dropna(subset=["kl", "logit_kl"])
    worse = int((both["kl"] > both["logit_kl"]).sum())
    found = (
        f"The mean goes from {both['logit_kl'].mean():.2f} to {both['kl'].mean():.2f} nats; "
        f"the tuned lens is worse in {worse:,} of {len(both):,} layers."
    )
    return said(figure, above, found if len(both) else "")


def compared(layers: pd.DataFrame, measure: str) -> go.Figure:
    """One measure of every lens by layer, with its 95 % interval over documents."""
    figure = go.Figure()
    for number, (name, rows) in enumerate(layers.groupby("lens", sort=False)):
        figure.add_scatter(
            x=rows["layer"],
            y=rows[measure],
            error_y=interval_bars(rows, measure),
            name=literal(name),
            mode="lines+markers",
            line_color=COLOURS[number % len(COLOURS)],
            hovertemplate="layer %{x}: %{y:.3f}<extra></extra>",
        )
    documents = int(layers["documents"].iloc[0])
    figure.update_xaxes(title="after layer")
    figure.update_yaxes(title=MEASURES[measure], rangemode="tozero")
    title = f"{documents} held-out documents, 95 % intervals"
    laid_out(figure, title, height=380, legend=True)
    better = "Lower is nearer to the model." if measure == "kl" else "Higher is better."
    above = (
        f"{better} All lenses meet in the last layer, where they are the model. A surprise would "
        "be a lens that is worse in the middle than the plain logit lens (final)."
    )
    means = layers.groupby("lens", sort=False)[measure].mean().dropna().sort_values()
    unit = " nats" if measure == "kl" else ""
    named = "; ".join(f"{printable(str(lens))} {mean:.2f}" for lens, mean in means.items())
    return said(figure, above, f"Means over the layers of each: {named}{unit}." if named else "")


def of_run(run: Run) -> Figures:
    """The figures of a run by name."""
    study, table = run.study, run.table
    if study == "lens.fit":
        return {"agreement": lambda: agreement(table("layers"))}
    if study == "lens.tune":
        return {
            "held-out": lambda: before_and_after(table("layers")),
            "training": lambda: training(table("curve")),
        }
    if study == "lens.compare":
        return {each: partial(_drawn, compared, run, "layers", each) for each in MEASURES}
    return {shade: partial(_drawn, grid, run, "cells", shade) for shade in SHADES}


def _drawn(
    draw: Callable[[pd.DataFrame, str], go.Figure], run: Run, table: str, of: str
) -> go.Figure:
    return draw(run.table(table), of)
