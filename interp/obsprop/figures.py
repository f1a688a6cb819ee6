"""Figures of observable propagation: heads, methods, coupling."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..plain_text import printable
from ..plots import (
    BLUE,
    DIVERGING,
    GREY,
    ORANGE,
    SEQUENTIAL,
    Figures,
    heat_map,
    interval_bars,
    label,
    laid_out,
    literal,
    row_at_most,
    said,
)
from ..runs.store import Run


def head_map(heads: pd.DataFrame, value: str, title: str) -> go.Figure:
    """A number of every head (columns layer, head and `value`) as a heat map, signed if it is."""
    grid = heads.pivot(index="head", columns="layer", values=value)
    numbers = grid.to_numpy()
    sizes = np.abs(numbers[np.isfinite(numbers)])
    if not sizes.size:
        return laid_out(heat_map(grid, 0, 1, "head %{x}.%{y}"), title, height=120 + 24 * len(grid))
    top, usual = float(sizes.max()), float(np.quantile(sizes, QUANTILE))
    # one head far above the others would leave them all pale
    cut = top > FAR * usual > 0 and sizes.size >= MANY
    top = usual if cut else top
    low, colours = (-top, DIVERGING) if (numbers < 0).any() else (0, SEQUENTIAL)
    figure = heat_map(grid, low, top, "head %{x}.%{y}<br>%{z:.4g}", colours)
    figure.update_xaxes(title="layer")
    figure.update_yaxes(title="head", autorange="reversed", dtick=1)
    laid_out(figure, title, height=120 + 24 * len(grid))
    known = heads.dropna(subset=[value])
    order = known[value].abs().sort_values(ascending=False, kind="stable").index
    first, *rest = known.loc[order[:3]].to_dict("records")
    named = f"{first['layer']}.{first['head']} with {first[value]:.3g}"
    others = ", ".join(f"{row['layer']}.{row['head']} ({row[value]:.3g})" for row in rest)
    found = f"The most is head {named}" + (f"; then {others}." if rest else ".")
    found = found if first[value] else "It is 0 at every head."
    found += f" The colours end at {top:.3g}, so that the others can be told apart." if cut else ""
    above = (
        "Every head of the model; the stronger the colour, the more it can do to the observable. "
        "Heads of late layers usually lead. A surprise would be a strong colour in an early layer."
    )
    return said(figure, above, found)


QUANTILE, FAR, MANY = 0.98, 2.0, 50
"""The colours of many heads end at this quantile of their sizes, where the largest is more than
`FAR` times that."""


def method_curves(methods: pd.DataFrame, figure_name: str) -> go.Figure:
    """Each trained probe's figure ("auc" or "r2") over its labelled examples with 95 % intervals;
    dashed, what observable propagation reaches from one pair; a cross, the bare difference of that
    pair's activations."""
    colours = {"logistic": GREY, "least squares": ORANGE, "mean difference": "#6a51a3"}
    figure = go.Figure()
    for name, colour in colours.items():
        part = methods[methods["method"] == name]
        figure.add_scatter(
            x=part["labelled"], y=part[figure_name], name=name, mode="lines+markers",
            line_color=colour, error_y=interval_bars(part, figure_name, thickness=1),
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
    figure.update_layout(legend=below)
    above = (
        "How well each method tells held-out examples apart: probes learn from labelled examples, "
        "observable propagation (dashed) from one pair of prompts and none. A surprise would be a "
        "probe of few examples above the dashed band."
    )
    reach, name = own[figure_name], {"auc": "AUC", "r2": "r²"}[figure_name]
    probes = methods[methods["method"].isin(colours)].dropna(subset=[figure_name])
    best = probes.groupby("labelled")[figure_name].max().sort_index()
    found = (
        f"One pair reaches {name} {reach:.2f}; {_passed(best, reach)}." if reach == reach else ""
    )
    return said(figure, above, found)


def _passed(best: pd.Series, reach: float) -> str:
    """From which number of labelled examples (the index, in order) on the best probe is above
    `reach`: at that number and at all larger ones."""
    if best.empty:
        return "no probe was trained"
    most, behind = int(best.index[-1]), best.index[~(best > reach)]
    if not len(behind):
        return f"the best probe passes it from {int(best.index[0]):,} labelled examples on"
    if behind[-1] != most:
        first = int(best.index[best.index > behind[-1]][0])
        return f"the best probe passes it from {first:,} labelled examples on"
    if len(behind) == len(best):
        return f"no probe passes it with up to {most:,} labelled examples"
    passed = ", ".join(f"{int(n):,}" for n in best.index[best > reach])
    return f"the best probe passes it with {passed} labelled examples, and not with {most:,}"


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
    laid_out(figure, title, height=380, legend=True)
    above = (
        "Each point is a held-out example. On a rising line the feature is what the model goes by. "
        "A surprise would be two clouds apart with no slope inside either: the feature would know "
        "the class and nothing more."
    )
    r = examples["score"].corr(examples["observable"]) if len(examples) > 1 else float("nan")
    found = f"Correlation {r:.2f} over {len(examples):,} examples." if r == r else ""
    return said(figure, above, found)


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
    known = pairs.dropna(subset=["coupling", slope])
    both = known[["coupling", slope]].to_numpy()
    ends = [float(both.min()), float(both.max())] if both.size else []
    figure.add_scatter(
        x=ends, y=ends, mode="lines", line={"color": GREY, "dash": "dash"}, hoverinfo="skip"
    )
    figure.update_layout(xaxis_title="coupling coefficient", yaxis_title="measured slope")
    where = {"prompts_slope": "on prompts", "corpus_slope": "on a corpus"}.get(slope, "")
    laid_out(figure, f"Predicted and measured {where}".strip(), height=380)
    above = (
        "Each point is a pair of features: how much the second's score should follow the first's, "
        "and how much it does. On the dashed line the prediction is right. A surprise would be a "
        "point with the other sign."
    )
    off = (known[slope] - known["coupling"]).abs()
    other = int((known[slope] * known["coupling"] < 0).sum())
    found = (
        f"Half of the {len(known):,} pairs are within {off.median():.2g} of the line; "
        f"{other:,} have the other sign."
    )
    return said(figure, above, found if len(known) else "")


def coupling_matrix(pairs: pd.DataFrame, head: str) -> go.Figure:
    """The coupling coefficients of one head's features, row to column."""
    grid = pairs[pairs["head"] == head].pivot(index="a", columns="b", values="coupling")
    grid = grid.rename(index=literal, columns=literal)
    top = float(np.nanmax(np.abs([1.0, *grid.to_numpy(float).ravel()])))
    figure = heat_map(grid, -top, top, "%{y} → %{x}: %{z:.3f}", DIVERGING, texttemplate="%{z:.2f}")
    figure.update_yaxes(autorange="reversed", automargin=True)
    laid_out(figure, f"Coupling of the features of head {literal(head)}", height=340)
    above = (
        "When the score of the row's feature rises by 1, the column's is predicted to rise by "
        "this. 0 means two features that do not know of each other. A surprise would be a pair "
        "that is strong one way and absent the other."
    )
    own = pairs[pairs["head"] == head].dropna(subset=["coupling"])
    if own.empty:
        return said(figure, above)
    most = row_at_most(own, own["coupling"].abs())
    found = f"The strongest is {printable(str(most['a']))} → {printable(str(most['b']))}: "
    return said(figure, above, f"{found}{most['coupling']:.2f}.")


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
