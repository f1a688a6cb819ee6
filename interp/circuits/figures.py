"""Pictures of a traced circuit: the graph, what each layer carries, the largest nodes, the cuts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..plain_text import printable
from ..plots import (
    BLUE,
    GREY,
    ORANGE,
    Figures,
    label,
    laid_out,
    literal,
    row_at_most,
    said,
    whole_ticks,
)
from ..runs.store import Run
from .picked import GROUP, KINDS, TRACE, By, Graph, Picked, flowing, opened, picked, short, words
from .placed import Places, placed

SYMBOLS = {
    "neuron": "circle", "head": "square", "latent": "hexagon", "embedding": "diamond",
    "mlp": "circle-dot", "attention": "square-dot", "bias": "triangle-up",
    "error": "x", "group": "star", "remainder": "circle-open", "target": "pentagon",
}  # fmt: skip
WIDTHS = (0.6, 1.4, 2.6, 4.5)
"""Widths of edges in pixels; the class is as the square root of the weight's size."""
SMALLEST, LARGEST = 6.0, 19.0
"""Diameters of nodes in pixels; the area is as the attribution's size."""
ROW = 19
"""Pixels of the picture's height for each row of nodes."""
SHARE, EDGES = 0.8, 0.4
"""What is shown at first: shares of the absolute attribution and of the absolute weight."""


def graph_figure(
    graph: Graph, share: float = SHARE, edges: float = EDGES, by: By = "attribution"
) -> go.Figure:
    """The strongest nodes and edges of a graph: positions of the prompt by layers. Blue is for the
    target and orange against it. What is not shown is said in the title.

    Args:
        share: of the absolute attribution that the nodes which are shown carry.
        edges: of the absolute weight of the edges between them.
        by: what the nodes' sizes and colours are, and their shares.
    """
    shown = picked(graph, share, edges, by)
    layers = int(graph.nodes["layer"].max())
    places = placed(shown.nodes, len(graph.tokens), layers)
    figure = go.Figure([*_edges(shown, places), *_nodes(graph, shown, places, by)])
    figure.update_xaxes(
        tickvals=[(left + right) / 2 for left, right in places.columns],
        ticktext=[label(short(token)) for token in graph.tokens],
        range=[0, places.width], showgrid=False, zeroline=False,
    )  # fmt: skip
    figure.update_yaxes(
        tickvals=[y for _, y in places.rows],
        ticktext=[name for name, _ in places.rows],
        range=[-1, places.height], title="layer", gridcolor="#eeeeee", zeroline=False,
    )  # fmt: skip
    title = f"{literal(graph.target)} = {graph.value:.4g}<br><sub>{shown.sentence}</sub>"
    laid_out(figure, title, height=int(140 + ROW * places.height), legend=True)
    legend = {"orientation": "h", "y": 0, "yref": "container", "yanchor": "bottom"}
    figure.update_layout(legend=legend, hovermode="closest", margin_b=70)
    above = (
        "Circles are neurons or latents, squares heads, diamonds embeddings; blue is for the "
        f"target, orange against it, the area is the {by}. A surprise would be a thick line from "
        "an early layer straight to the target, or an orange node as large as the blue ones."
    )
    return said(figure, above, _leading(graph, by))


def _leading(graph: Graph, by: By) -> str:
    """The largest node, and how many carry half of all."""
    sizes = graph.parts[by].abs().dropna().sort_values(ascending=False)
    if not sizes.sum() > 0:
        return ""
    first = graph.parts.loc[sizes.index[0]]
    half = int((sizes.cumsum() < sizes.sum() / 2).sum()) + 1
    return (
        f"The largest is {printable(str(first['label']))} with {first[by]:+.3g} logits of a target "
        f"of {graph.value:.3g}. {half:,} of the {len(sizes):,} nodes that are kept carry half of "
        f"their absolute {by}."
    )


def _edges(shown: Picked, places: Places) -> Iterator[go.Scatter]:
    """Lines, one trace a sign and width, the thin ones first."""
    most = shown.edges["weight"].abs().max()
    sizes = np.sqrt(shown.edges["weight"].abs() / most)
    classes = np.minimum(sizes * len(WIDTHS), len(WIDTHS) - 1)
    for i, width in enumerate(WIDTHS):
        for colour, sign in ((ORANGE, -1), (BLUE, 1)):
            chosen = (classes.astype(int) == i) & (np.sign(shown.edges["weight"]) == sign)
            ends = shown.edges[chosen]
            if ends.empty:
                continue
            x, y = [], []
            for source, target in zip(ends["source"], ends["target"], strict=True):
                (a, b), (c, d) = places.at[source], places.at[target]
                x += [a, c, None]
                y += [b, d, None]
            yield go.Scatter(
                x=x, y=y, mode="lines", hoverinfo="skip", showlegend=False, opacity=0.45,
                line={"width": width, "color": colour},
            )  # fmt: skip


def _nodes(graph: Graph, shown: Picked, places: Places, by: By) -> Iterator[go.Scatter]:
    """Markers, one trace a kind; `customdata` is the node's number."""
    values = shown.nodes[by].fillna(shown.nodes["attribution"])  # the target has no effect
    most = values[shown.nodes["kind"] != "target"].abs().max()
    into = graph.edges[graph.edges["source"].map(graph.nodes["kind"]) == "remainder"]
    rest = flowing(into, by).groupby(into["target"]).sum()
    for kind in dict.fromkeys([*KINDS, *shown.nodes["kind"]]):
        rows = shown.nodes[shown.nodes["kind"] == kind]
        if rows.empty:
            continue
        own = values[rows.index]
        sizes = np.sqrt(np.minimum(own.abs() / (most or 1.0), 1.0))
        yield go.Scatter(
            x=[places.at[node][0] for node in rows.index],
            y=[places.at[node][1] for node in rows.index],
            mode="markers",
            name=literal(kind),
            customdata=list(rows.index),
            hovertext=[
                hover(row, rest.get(row["node"], 0.0), by) for row in rows.to_dict("records")
            ],
            hovertemplate="%{hovertext}<extra></extra>",
            marker={
                "symbol": SYMBOLS.get(kind, "circle"),
                "size": SMALLEST + (LARGEST - SMALLEST) * sizes,
                "color": [BLUE if value >= 0 else ORANGE for value in own],
                "line": {"width": 1, "color": "white"},
                "opacity": 1,
            },
            unselected={"marker": {"opacity": 0.5}},
        )


def hover(row: Mapping[Any, Any], rest: float = 0.0, by: By = "attribution") -> str:
    """What is said of a node under the pointer.

    Args:
        rest: what it has from the remainder of `by`.
    """
    lines = [f"<b>{literal(row['label'])}</b>  {label(row['token'])}"]
    lines.append(f"attribution {row['attribution']:+.4g}")
    for name in ("effect", "activation"):
        if row[name] == row[name]:
            lines.append(f"{name} {row[name]:.4g}")
    if rest:
        lines.append(f"{by} from the remainder {rest:+.4g}")
    for side, verb in (("top", "writes"), ("bottom", "against")):
        if tokens := words(row, side, 6):
            lines.append(f"{verb} {' '.join(map(label, tokens))}")
    return "<br>".join(lines)


def by_layer(totals: pd.DataFrame) -> go.Figure:
    """What the nodes of each layer and kind carry together, kept or not."""
    figure = go.Figure()
    for kind in dict.fromkeys(k for k in [*KINDS, *totals["kind"]] if k in set(totals["kind"])):
        rows = totals[totals["kind"] == kind].sort_values("layer")
        figure.add_bar(
            x=["emb" if layer < 0 else str(layer) for layer in rows["layer"]],
            y=rows["attribution"], name=literal(kind), marker_color=_SHADES.get(kind, "#c9ccd1"),
            customdata=rows[["nodes", "absolute"]].to_numpy(),
            hovertemplate="layer %{x}: %{y:+.4g}<br>%{customdata[0]:,} nodes, "
            "absolute %{customdata[1]:.4g}<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    layers = sorted(set(totals["layer"]))
    order = ["emb" if layer < 0 else str(layer) for layer in layers]
    figure.update_xaxes(title="layer", type="category", categoryarray=order)
    figure.update_yaxes(title="attribution, in the target's units")
    figure.update_layout(barmode="relative")
    laid_out(figure, "What each layer's nodes carry", height=320, legend=True)
    above = (
        "The attributions of all nodes of a layer together, kept or not. Layers do not add up to "
        "the target: what flows through several counts at each. A surprise would be a layer far "
        "above its neighbours."
    )
    sums = totals.dropna(subset=["attribution"]).groupby("layer")["attribution"].sum()
    if not len(sums):
        return said(figure, above)
    most = int(sums.index[int(sums.abs().to_numpy().argmax())])
    name = "the embedding" if most < 0 else f"layer {most}"
    return said(figure, above, f"The most is in {name}: {sums[most]:+.3g} logits.")


_SHADES = {
    "embedding": "#7c9a5e", "head": "#8c6bb1", "neuron": BLUE, "latent": "#2a9d8f", "bias": GREY,
    "error": ORANGE, "mlp": "#2b5183", "attention": "#5f4680",
}  # fmt: skip


def largest(graph: Graph, most: int = 20, by: By = "attribution") -> go.Figure:
    """The nodes with the largest attributions, or effects, as bars."""
    parts = graph.parts
    rows = parts.loc[parts[by].abs().sort_values(ascending=False).index[:most]][::-1]
    figure = go.Figure(
        go.Bar(
            x=rows[by],
            y=[
                f"{literal(row['label'])}  {label(row['token'])}" for row in rows.to_dict("records")
            ],
            orientation="h",
            marker_color=[BLUE if value >= 0 else ORANGE for value in rows[by]],
            hovertext=[hover(row) for row in rows.to_dict("records")],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    )
    figure.update_yaxes(automargin=True, type="category")
    figure.update_xaxes(title=f"{by}, in the target's units")
    title = f"The {len(rows)} largest of {len(parts):,} nodes; {literal(graph.target)}"
    laid_out(figure, title, height=120 + 22 * len(rows))
    above = (
        "One bar a node, blue for the target and orange against it. A surprise would be one bar "
        "that outweighs all the others: the answer would hang on one part."
    )
    sizes = rows[by].abs()
    if not sizes.sum() > 0:
        return said(figure, above)
    found = (
        f"The first has {rows[by].iloc[-1]:+.3g} logits, {sizes.iloc[-1] / sizes.sum():.0%} of the "
        f"{len(rows)} bars' lengths; together they have {rows[by].sum():+.3g} of "
        f"{graph.value:.3g}."
    )
    return said(figure, above, found)


def cut_errors(cuts: pd.DataFrame) -> go.Figure:
    """How far the sum over each layer's cut is from the target."""
    figure = go.Figure(
        go.Scatter(
            x=cuts["layer"], y=cuts["error"].abs(), mode="lines+markers", line_color=BLUE,
            customdata=cuts["sum"],
            hovertemplate="after layer %{x}: %{customdata:.6g}, off by %{y:.2g}<extra></extra>",
        )
    )  # fmt: skip
    whole_ticks(figure, "x", cuts["layer"])
    figure.update_xaxes(title="after layer")
    figure.update_yaxes(title="|sum - target|", type="log", exponentformat="power")
    laid_out(figure, "What crosses each layer, less the target", height=260)
    above = (
        "A check: whatever crosses a layer must add up to the target. A point above 0.001 would "
        "be a fault of the arithmetic."
    )
    if cuts["error"].isna().all():
        return said(figure, above)
    worst = row_at_most(cuts, cuts["error"].abs())
    found = f"Off by {abs(worst['error']):.2g} logits at most, after layer {int(worst['layer'])}."
    return said(figure, above, found)


def of_run(run: Run) -> Figures:
    """The figures of a circuit by their names."""
    if run.study not in (TRACE, GROUP):
        return {}
    graph = opened(run)
    drawn: Figures = {
        "graph": lambda: graph_figure(graph),
        "layers": lambda: by_layer(run.table("totals")),
        "largest": lambda: largest(graph),
        "cuts": lambda: cut_errors(run.table("cuts")),
    }
    if graph.has_effects:
        drawn["effects"] = lambda: graph_figure(graph, by="effect")
        drawn["largest-effects"] = lambda: largest(graph, by="effect")
    return drawn
