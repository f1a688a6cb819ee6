"""Figures of the context knob: sweep, layers, answers, and side effects."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ..plots import (
    BLUE,
    GREY,
    ORANGE,
    Figures,
    interval_bars,
    label,
    laid_out,
    literal,
    whole_ticks,
)
from ..runs.store import Run


def knob_curve(curve: pd.DataFrame, direction: str) -> go.Figure:
    """Probability of the context's and of the prior answer over c; dashed: not steered."""
    rows = curve[curve["direction"] == direction]
    steered, rest = rows[rows["step"].notna()].sort_values("c"), rows[rows["step"].isna()]
    c, (told, prior) = steered["c"], rest[["p_told", "p_prior"]].to_numpy(float)[0]
    figure = go.Figure()
    _line(figure, c, steered["p_told"], "the context's answer", BLUE, told)
    _line(figure, c, steered["p_prior"], "the prior answer", ORANGE, prior)
    figure.update_xaxes(title="c, the value of u·h")
    figure.update_yaxes(title="mean probability of its first token", range=[0, 1])
    figure.update_layout(legend={"orientation": "h", "y": -0.25})
    title = f"Steering along the {literal(direction)} direction, no intent in the prompt"
    return laid_out(figure, title, height=380, legend=True)


def knob_layers(layers: pd.DataFrame) -> go.Figure:
    """How often the answer is swapped by the learned subspace, and by the whole residual."""
    figure = go.Figure()
    _line(figure, layers["layer"], layers["swapped"], "learned subspace", BLUE)
    _line(figure, layers["layer"], layers["whole_swapped"], "whole residual", GREY)
    figure.update_xaxes(title="layer")
    whole_ticks(figure, "x", layers["layer"], most=12)
    figure.update_yaxes(title="share of answers swapped", range=[0, 1])
    title = "Interchange at the last token, validation items"
    return laid_out(figure, title, height=340, legend=True)


def knob_search(ranges: pd.DataFrame, curves: pd.DataFrame) -> go.Figure:
    """Probability of the source's answer after every layer; dots: the layers that are patched."""
    figure = go.Figure()
    colours = [BLUE, ORANGE, GREY, "#6a51a3"]
    for i, row in enumerate(ranges.to_dict("records")):
        probes = curves[curves["setting"] == row["setting"]]
        final = probes[probes["probe"] == probes["probe"].max()].sort_values("layer")
        colour = colours[i % len(colours)]
        figure.add_scatter(
            x=final["layer"], y=final["source"], name=literal(row["setting"]), mode="lines",
            line_color=colour,
        )  # fmt: skip
        patched = final[final["layer"].isin([int(x) for x in row["layers"]])]
        figure.add_scatter(
            x=patched["layer"], y=patched["source"], mode="markers", showlegend=False,
            marker={"color": colour, "size": 10},
        )  # fmt: skip
    figure.update_xaxes(title="layer of the read-out")
    figure.update_yaxes(title="probability of the source's answer", range=[0, 1])
    title = "Layers (dots) whose attention brings the answer to the last token"
    return laid_out(figure, title, height=380, legend=True)


def knob_bars(scores: pd.DataFrame, model: str) -> go.Figure:
    """PairAcc by direction and held-out part, with 95 % intervals."""
    figure = go.Figure()
    for (part, rows), colour in zip(
        scores[scores["model"] == model].groupby("part", sort=False), (BLUE, ORANGE), strict=False
    ):
        figure.add_bar(
            x=rows["direction"].replace("none", "intent in the prompt").map(literal),
            y=rows["pair_acc"], error_y=interval_bars(rows, "pair_acc"),
            name=f"held-out {literal(part)}", marker_color=colour,
        )  # fmt: skip
    figure.update_yaxes(title="PairAcc", range=[0, 1])
    title = f"Steering with no intent in the prompt, {literal(model)} model"
    return laid_out(figure, title, height=360, legend=True)


def knob_answers(tokens: list[str], probabilities: list[float]) -> go.Figure:
    """The likeliest first tokens of an answer, as bars."""
    names = [label(token) for token in tokens]
    figure = go.Figure(go.Bar(x=probabilities, y=names, orientation="h", marker_color=BLUE))
    figure.update_xaxes(title="probability", range=[0, 1])
    figure.update_yaxes(autorange="reversed", type="category")
    return laid_out(figure, "First token of the answer", height=300)


def knob_text_cost(effects: pd.DataFrame) -> go.Figure:
    """Nats a token on ordinary text over c, one line a model; dashed: not steered."""
    figure = go.Figure()
    for (model, rows), colour in zip(effects.groupby("model"), (BLUE, ORANGE), strict=False):
        c = rows["c"].fillna(float("inf"))
        mean = (rows["nats"] * rows["tokens"]).groupby(c).sum() / rows["tokens"].groupby(c).sum()
        steered = mean.drop(float("inf"))
        _line(figure, steered.index, steered, literal(model), colour, float(mean.loc[float("inf")]))
    figure.update_xaxes(title="c, held at every position")
    figure.update_yaxes(title="nats a token")
    return laid_out(figure, "Loss on ordinary text while steered", height=340, legend=True)


def knob_positions(effects: pd.DataFrame, model: str) -> go.Figure:
    """Nats that each c adds to a token's loss, by the token's position in the text."""
    rows = effects[effects["model"] == model]
    rest = rows[rows["c"].isna()].set_index("position")["nats"]
    figure = go.Figure()
    for c, part in rows[rows["c"].notna()].groupby("c"):
        added = part.set_index("position")["nats"] - rest
        figure.add_scatter(x=added.index, y=added, name=f"{c:.0f}", mode="lines")
    figure.update_xaxes(title="position in the text")
    figure.update_yaxes(title="added nats a token")
    title = f"Added loss by position, {literal(model)} model, for each c"
    return laid_out(figure, title, height=340, legend=True)


def knob_separation(several: pd.DataFrame, r: float) -> go.Figure:
    """PairAcc over the separation of the two intents along the knob, a dot a configuration."""
    figure = go.Figure()
    for (model, rows), colour in zip(several.groupby("model"), (BLUE, ORANGE), strict=False):
        figure.add_scatter(
            x=rows["separation"], y=rows["pair_acc"], name=literal(model), mode="markers+text",
            text=[literal(f"{n}, {x}") for n, x in zip(rows["shots"], rows["format"], strict=True)],
            textposition="top center", marker={"color": colour, "size": 10},
            error_y=interval_bars(rows, "pair_acc", thickness=1),
        )  # fmt: skip
    figure.update_xaxes(title="|mean of u·h, context − prior|")
    figure.update_yaxes(title="PairAcc", range=[-0.05, 1.1])
    title = "PairAcc and separation (demonstrations, format)"
    title += f": r = {r:.2f}" if r == r else ""
    return laid_out(figure, title, height=400, legend=True)


def _line(
    figure: go.Figure, x: Any, y: Any, name: str, colour: str, dashed: float | None = None
) -> None:
    """A line with its markers, and its dashed level where nothing is steered."""
    figure.add_scatter(x=x, y=y, name=name, mode="lines+markers", line_color=colour)
    if dashed is not None:
        figure.add_hline(y=dashed, line={"color": colour, "dash": "dash"})


def of_run(run: Run) -> Figures:
    """The figures of a run of this analysis, by name."""
    made: Figures = {}
    if run.has("learn/layers"):
        made["layers"] = lambda: knob_layers(run.table("learn/layers"))
    if run.has("search/ranges"):
        tables = ("search/ranges", "search/curves")
        made["search"] = lambda: knob_search(*map(run.table, tables))
    if run.has("steer/scores"):
        scores = run.table("steer/scores")
        for setting in scores["model"].unique():
            name = str(setting).replace(" ", "-")
            made[f"pairacc-{name}"] = partial(knob_bars, scores, str(setting))
            made[f"sweep-{name}"] = partial(_stored_curve, run, f"sweep/{setting}")
        r = float(run.metrics.get("separation correlates", math.nan))
        made["separation"] = lambda: knob_separation(of_both_models(run, "configurations"), r)
        made["cost"] = lambda: knob_text_cost(of_both_models(run, "perplexity"))
    return made


def _stored_curve(run: Run, table: str) -> go.Figure:
    return knob_curve(run.table(table), "learned")


def of_both_models(run: Run, name: str) -> pd.DataFrame:
    """`effects/<name>-…` of the tuned and the untuned model, or of the one that was measured."""
    names = [f"effects/{name}-{model}" for model in ("tuned", "untuned")]
    return pd.concat(run.table(name) for name in names if run.has(name))
