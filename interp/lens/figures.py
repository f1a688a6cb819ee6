"""Pictures of lenses: a prompt's grid, halves of a fit, a training, lenses by layer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd
import plotly.graph_objects as go

from ..plots import BLUE, GREY, ORANGE, SEQUENTIAL, WARMING, Figures, label, laid_out, literal

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
    said = cells.pivot(index="layer", columns="position", values="said").map(label)
    tops = cells.assign(
        more=[
            "<br>".join(f"{label(t)}  {p:.3f}" for t, p in zip(ts, ps, strict=True))
            for ts, ps in zip(cells["tops"], cells["probabilities"], strict=True)
        ]
    ).pivot(index="layer", columns="position", values="more")
    tokens = cells.drop_duplicates("position").sort_values("position")["token"]
    figure = go.Figure(
        go.Heatmap(
            z=table.to_numpy(),
            y=[str(layer) for layer in table.index],
            text=said.to_numpy(),
            texttemplate="%{text}",
            customdata=tops.to_numpy(),
            hovertemplate="layer %{y}, position %{x}<br>%{customdata}<extra>%{z:.3f}</extra>",
            colorscale=SEQUENTIAL if shade == "p" else WARMING,
            colorbar={"title": SHADES[shade]},
        )
    )
    figure.update_xaxes(
        tickvals=list(range(len(tokens))), ticktext=list(map(label, tokens)), side="top"
    )
    figure.update_yaxes(title="after layer", type="category")
    return laid_out(figure, "", height=120 + 24 * len(table))


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
    return laid_out(figure, "", height=300)


def agreement(layers: pd.DataFrame) -> go.Figure:
    """How alike the maps of the two halves of the prompts are, by layer."""
    figure = go.Figure(go.Scatter(x=layers["layer"], y=layers["agreement"], mode="lines+markers"))
    figure.update_xaxes(title="layer")
    figure.update_yaxes(title="cosine of the two halves' J", range=[0, 1.02])
    return laid_out(figure, "Maps from two halves of the prompts", height=320)


def training(curve: pd.DataFrame) -> go.Figure:
    """KL of the model's distribution from a tuned lens', step by step."""
    figure = go.Figure(go.Scatter(x=curve["step"], y=curve["kl"], mode="lines"))
    figure.update_xaxes(title="step")
    figure.update_yaxes(title=f"{KL}, mean over layers", rangemode="tozero")
    return laid_out(figure, "Training", height=320)


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
    return laid_out(figure, "On passages of other documents", height=320, legend=True)


def compared(layers: pd.DataFrame, measure: str) -> go.Figure:
    """One measure of every lens by layer, with its 95 % interval over documents."""
    figure = go.Figure()
    for number, (name, rows) in enumerate(layers.groupby("lens", sort=False)):
        figure.add_scatter(
            x=rows["layer"],
            y=rows[measure],
            error_y={
                "array": rows[f"{measure}_high"] - rows[measure],
                "arrayminus": rows[measure] - rows[f"{measure}_low"],
            },
            name=literal(name),
            mode="lines+markers",
            line_color=COLOURS[number % len(COLOURS)],
            hovertemplate="layer %{x}: %{y:.3f}<extra></extra>",
        )
    documents = int(layers["documents"].iloc[0])
    figure.update_xaxes(title="after layer")
    figure.update_yaxes(title=MEASURES[measure], rangemode="tozero")
    title = f"{documents} held-out documents, 95 % intervals"
    return laid_out(figure, title, height=380, legend=True)


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
