"""Figures of observable propagation: heads, methods, coupling."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..plots import (
    BLUE,
    DIVERGING,
    GREY,
    ORANGE,
    SEQUENTIAL,
    Figures,
    heat_map,
    label,
    laid_out,
    literal,
)
from ..runs.store import Run


def head_map(heads: pd.DataFrame, value: str, title: str) -> go.Figure:
    """A number of every head (columns layer, head and `value`) as a heat map, signed if it is."""
    grid = heads.pivot(index="head", columns="layer", values=value)
    numbers = grid.to_numpy()
    top = float(np.abs(numbers).max())
    low, colours = (-top, DIVERGING) if (numbers < 0).any() else (0, SEQUENTIAL)
    figure = heat_map(grid, low, top, "head %{x}.%{y}<br>%{z:.4g}", colours)
    figure.update_xaxes(title="layer")
    figure.update_yaxes(title="head", autorange="reversed", dtick=1)
    return laid_out(figure, title, height=120 + 24 * len(grid))


def method_curves(methods: pd.DataFrame, figure_name: str) -> go.Figure:
    """Each trained probe's figure ("auc" or "r2") over its labelled examples with 95 % intervals;
    dashed, what observable propagation reaches from one pair; a cross, the bare difference of that
    pair's activations."""
    colours = {"logistic": GREY, "least squares": ORANGE, "mean difference": "#6a51a3"}
    figure = go.Figure()
    for name, colour in colours.items():
        part = methods[methods["method"] == name]
        value = part[figure_name]
        up, down = part[f"{figure_name}_high"] - value, value - part[f"{figure_name}_low"]
        figure.add_scatter(
            x=part["labelled"], y=value, name=name, mode="lines+markers", line_color=colour,
            error_y={"array": up, "arrayminus": down, "thickness": 1},
        )  # fmt: skip
    bare = methods[methods["method"] == "pair difference"]
    figure.add_scatter(
        x=bare["labelled"], y=bare[figure_name], name="the pair's bare difference", mode="markers",
        marker={"color": BLUE, "symbol": "x", "size": 9},
    )  # fmt: skip
    own = methods[methods["method"] == "ObsProp"].iloc[0]
    ends = [methods["labelled"].replace(0, 2).min(), methods["labelled"].max()]
    figure.add_scatter(
        x=[*ends, *ends[::-1]],
        y=[own[f"{figure_name}_low"]] * 2 + [own[f"{figure_name}_high"]] * 2,
        fill="toself", mode="none", fillcolor="rgba(59,111,182,0.15)", hoverinfo="skip",
        showlegend=False,
    )  # fmt: skip
    figure.add_scatter(
        x=ends, y=[own[figure_name]] * 2, name="ObsProp, one pair", mode="lines",
        line={"color": BLUE, "dash": "dash"},
    )  # fmt: skip
    figure.update_xaxes(
        title="labelled examples", type="log", tickvals=sorted(set(methods["labelled"]))
    )
    figure.update_yaxes(title={"auc": "AUC", "r2": "r²"}[figure_name])
    laid_out(figure, "Held-out examples, with 95 % intervals", height=420, legend=True)
    below = {"orientation": "h", "y": -0.25}  # beside it the legend leaves a narrow window no plot
    return figure.update_layout(legend=below)


def score_scatter(examples: pd.DataFrame) -> go.Figure:
    """The model's own observable against the feature's score, an example a point."""
    figure = go.Figure()
    for side, colour in ((True, BLUE), (False, ORANGE)):
        part = examples[examples["positive"] == side]
        figure.add_scatter(
            x=part["score"], y=part["observable"], mode="markers", marker_color=colour,
            name="positive" if side else "negative", text=[label(t) for t in part["text"]],
            hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title="score of the feature at the word")
    figure.update_yaxes(title="observable at the end")
    title = "The feature's score and the model's observable"
    return laid_out(figure, title, height=380, legend=True)


def coupling_scatter(pairs: pd.DataFrame, slope: str = "prompts_slope") -> go.Figure:
    """Measured best-fit slopes against predicted coupling coefficients, a pair a point."""
    named = pairs[["a", "b", "head"]].map(literal)
    figure = go.Figure(
        go.Scatter(
            x=pairs["coupling"], y=pairs[slope], mode="markers", marker_color=BLUE,
            text=[f"{a} → {b}, head {h}" for a, b, h in named.to_numpy()],
            hovertemplate="%{text}<br>predicted %{x:.3f}, measured %{y:.3f}<extra></extra>",
        )
    )  # fmt: skip
    both = pairs[["coupling", slope]].to_numpy()
    ends = [float(both.min()), float(both.max())]
    figure.add_scatter(
        x=ends, y=ends, mode="lines", line={"color": GREY, "dash": "dash"}, hoverinfo="skip"
    )
    figure.update_layout(xaxis_title="coupling coefficient", yaxis_title="measured slope")
    return laid_out(figure, "Predicted and measured", height=380)


def coupling_matrix(pairs: pd.DataFrame, head: str) -> go.Figure:
    """The coupling coefficients of one head's features, row to column."""
    grid = pairs[pairs["head"] == head].pivot(index="a", columns="b", values="coupling")
    grid = grid.rename(index=literal, columns=literal)
    top = max(float(np.nanmax(np.abs(grid.to_numpy()))), 1.0)
    figure = heat_map(grid, -top, top, "%{y} → %{x}: %{z:.3f}", DIVERGING, texttemplate="%{z:.2f}")
    figure.update_yaxes(autorange="reversed", automargin=True)
    return laid_out(figure, f"Coupling of the features of head {literal(head)}", height=340)


def of_run(run: Run) -> Figures:
    """The figures of a run of this analysis, by name."""
    if run.study == "obsprop.couple":
        pairs = run.table("pairs/pairs")
        heads = {f"matrix-{head}": head for head in dict.fromkeys(pairs["head"])}
        made: Figures = {n: partial(coupling_matrix, pairs, h) for n, h in heads.items()}
        slopes = ("prompts", "corpus")
        return made | {s: partial(coupling_scatter, pairs, f"{s}_slope") for s in slopes}
    heads_of, methods = run.table("heads/heads"), run.table("scores/methods")
    titles = {"norm": "Length of the vector", "effect": "Direct effect"}
    made = {f"heads-{v}": partial(head_map, heads_of, v, title) for v, title in titles.items()}
    made |= {n: partial(method_curves, methods, n) for n in ("auc", "r2") if n in methods}
    if run.table("scores/examples")["observable"].notna().all():
        made["scores"] = lambda: score_scatter(run.table("scores/examples"))
    return made
