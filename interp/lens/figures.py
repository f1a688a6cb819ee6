"""Pictures of a lens: the grid of a prompt, and a fit's agreement by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from ..model.vocabulary import visible
from ..plots import Figures

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from ..runs.store import Run

SHADES = {"p": "probability", "entropy": "entropy, nats", "kl": "KL from the model, nats"}


def grid(cells: pd.DataFrame, shade: str = "p") -> go.Figure:
    """Layers by positions: the likeliest token in each cell, coloured by p, entropy or kl."""
    import plotly.graph_objects as go

    table = cells.pivot(index="layer", columns="position", values=shade)
    said = cells.pivot(index="layer", columns="position", values="said").map(visible)
    tops = cells.assign(
        more=[
            "<br>".join(f"{_safe(visible(t))}  {p:.3f}" for t, p in zip(ts, ps, strict=True))
            for ts, ps in zip(cells["tops"], cells["probabilities"], strict=True)
        ]
    ).pivot(index="layer", columns="position", values="more")
    tokens = cells.drop_duplicates("position").sort_values("position")["token"]
    figure = go.Figure(
        go.Heatmap(
            z=table.to_numpy(),
            y=[str(layer) for layer in table.index],
            text=said.map(_safe).to_numpy(),
            texttemplate="%{text}",
            customdata=tops.to_numpy(),
            hovertemplate="layer %{y}, token %{x}<br>%{customdata}<extra>%{z:.3f}</extra>",
            colorscale="Blues" if shade == "p" else "Oranges",
            colorbar={"title": SHADES[shade]},
        )
    )
    figure.update_xaxes(
        tickvals=list(range(len(tokens))), ticktext=[_safe(visible(t)) for t in tokens], side="top"
    )
    figure.update_yaxes(title="after layer", type="category")
    figure.update_layout(height=120 + 24 * len(table))
    return figure


def column(cells: pd.DataFrame, value: str) -> go.Figure:
    """One position's entropy or kl by layer."""
    import plotly.graph_objects as go

    figure = go.Figure(
        go.Scatter(
            x=cells["layer"],
            y=cells[value],
            text=[_safe(visible(token)) for token in cells["said"]],
            mode="lines+markers",
            hovertemplate="layer %{x}: %{text}, %{y:.3f}<extra></extra>",
        )
    )
    figure.update_xaxes(title="after layer")
    figure.update_yaxes(title=SHADES[value], rangemode="tozero")
    return figure


def agreement(layers: pd.DataFrame) -> go.Figure:
    """How alike the maps of the two halves of the prompts are, by layer."""
    import plotly.graph_objects as go

    figure = go.Figure(go.Scatter(x=layers["layer"], y=layers["agreement"], mode="lines+markers"))
    figure.update_xaxes(title="layer")
    figure.update_yaxes(title="cosine of the two halves' J", range=[0, 1.02])
    return figure


def of_run(run: Run) -> Figures:
    """The figures of a run by name."""
    if run.study == "lens.fit":
        return {"agreement": lambda: agreement(run.table("layers"))}
    return {shade: lambda shade=shade: grid(run.table("cells"), shade) for shade in SHADES}  # type: ignore[misc]


def _safe(text: str) -> str:
    """Text that plotly would take for tags."""
    return text.replace("&", "&amp;").replace("<", "&lt;")
