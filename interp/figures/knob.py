"""Figures of the context knob: what the sweep gives, layers, answers, and side effects."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from .common import BLUE, GREY, ORANGE, label, laid_out


def knob_curve(curve: pd.DataFrame, direction: str) -> go.Figure:
    """How likely the context's and the prior answer are over c; dashed, with nothing turned."""
    rows = curve[curve["direction"] == direction]
    turned, rest = rows[rows["step"].notna()].sort_values("c"), rows[rows["step"].isna()]
    figure = go.Figure()
    for name, colour, shown in (
        ("p_told", BLUE, "the context's answer"),
        ("p_prior", ORANGE, "the prior answer"),
    ):
        figure.add_scatter(
            x=turned["c"], y=turned[name], name=shown, mode="lines+markers", line_color=colour
        )
        figure.add_hline(y=float(rest[name].iloc[0]), line={"color": colour, "dash": "dash"})
    figure.update_xaxes(title="c, where u·h is held")
    figure.update_yaxes(title="mean probability of its first token", range=[0, 1])
    laid_out(figure, f"Turning the {direction} direction, no intent in the prompt", height=380)
    return figure.update_layout(showlegend=True, legend={"orientation": "h", "y": -0.25})


def knob_layers(layers: pd.DataFrame) -> go.Figure:
    """How often the answer is swapped by the learned subspace, and by the whole residual."""
    figure = go.Figure()
    for name, colour, shown in (
        ("swapped", BLUE, "learned subspace"),
        ("whole_swapped", GREY, "whole residual"),
    ):
        figure.add_scatter(
            x=layers["layer"], y=layers[name], name=shown, mode="lines+markers", line_color=colour
        )
    figure.update_xaxes(title="layer", dtick=1)
    figure.update_yaxes(title="share of answers swapped", range=[0, 1])
    laid_out(figure, "Interchange at the last token, validation items", height=340)
    return figure.update_layout(showlegend=True)


def knob_search(ranges: pd.DataFrame, curves: pd.DataFrame) -> go.Figure:
    """The source's answer after every layer, the found layers patched; thick, those layers."""
    figure = go.Figure()
    colours = [BLUE, ORANGE, GREY, "#6a51a3"]
    for place, row in enumerate(ranges.to_dict("records")):
        part = curves[curves["setting"] == row["setting"]]
        final = part[part["probe"] == part["probe"].max()].sort_values("layer")
        colour = colours[place % len(colours)]
        figure.add_scatter(
            x=final["layer"], y=final["source"], name=str(row["setting"]), mode="lines",
            line_color=colour,
        )  # fmt: skip
        found = final[final["layer"].isin([int(x) for x in row["layers"]])]
        figure.add_scatter(
            x=found["layer"], y=found["source"], mode="markers", showlegend=False,
            marker={"color": colour, "size": 10},
        )  # fmt: skip
    figure.update_xaxes(title="layer of the read-out")
    figure.update_yaxes(title="probability of the source's answer", range=[0, 1])
    laid_out(figure, "Layers whose attention brings the answer (dots)", height=380)
    return figure.update_layout(showlegend=True)


def knob_bars(scores: pd.DataFrame, model: str) -> go.Figure:
    """PairAcc by direction and held-out part, with 95 % intervals."""
    figure = go.Figure()
    for (part, rows), colour in zip(
        scores[scores["model"] == model].groupby("part", sort=False), (BLUE, ORANGE), strict=False
    ):
        up, down = rows["pair_acc_high"] - rows["pair_acc"], rows["pair_acc"] - rows["pair_acc_low"]
        figure.add_bar(
            x=rows["direction"].replace("none", "intent in the prompt"), y=rows["pair_acc"],
            name=f"held-out {part}", marker_color=colour,
            error_y={"array": up, "arrayminus": down},
        )  # fmt: skip
    figure.update_yaxes(title="PairAcc", range=[0, 1])
    laid_out(figure, f"Steering without an intent, {model} model", height=360)
    return figure.update_layout(showlegend=True)


def knob_answers(tokens: list[str], probabilities: list[float]) -> go.Figure:
    """The likeliest first tokens of an answer, as bars."""
    names = [label(token) for token in tokens]
    figure = go.Figure(go.Bar(x=probabilities, y=names, orientation="h", marker_color=BLUE))
    figure.update_xaxes(title="probability", range=[0, 1])
    figure.update_yaxes(autorange="reversed", type="category")
    return laid_out(figure, "First token of the answer", height=300)


def knob_price(effects: pd.DataFrame) -> go.Figure:
    """Nats a token on ordinary text over c, one line a model; dashed, nothing turned."""
    figure = go.Figure()
    for (model, rows), colour in zip(effects.groupby("model"), (BLUE, ORANGE), strict=False):
        turned, rest = rows[rows["c"].notna()].sort_values("c"), rows[rows["c"].isna()]
        figure.add_scatter(
            x=turned["c"], y=turned["nats"], name=str(model), mode="lines+markers",
            line_color=colour,
        )  # fmt: skip
        figure.add_hline(y=float(rest["nats"].iloc[0]), line={"color": colour, "dash": "dash"})
    figure.update_xaxes(title="c, held at every position")
    figure.update_yaxes(title="nats a token")
    laid_out(figure, "What it costs on ordinary text", height=340)
    return figure.update_layout(showlegend=True)
