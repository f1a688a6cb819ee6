"""Figures of the neuron analyses: one vector, a layer, a clamp sweep, two atlases."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..directions.figures import gains
from ..model.vocabulary import visible
from ..plots import (
    BLUE,
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
from .layers import above_chance, needed
from .search import density


def neuron_tokens(rows: pd.DataFrame) -> go.Figure:
    """Top and bottom tokens of one vector as bars on one scale; `rows` as `neurons.search.show`
    gives them."""
    figure = make_subplots(1, 2, horizontal_spacing=0.2, subplot_titles=["top", "bottom"])
    for column, side, colour in ((1, "top", BLUE), (2, "bottom", ORANGE)):
        row = rows[rows["side"] == side].iloc[0]
        labels = [f"{i + 1}  {label(token)}" for i, token in enumerate(row["tokens"])]
        figure.add_bar(
            x=list(row["logits"]), y=labels, orientation="h", marker_color=colour,
            hovertext=[f"id {i}" for i in row["ids"]], row=1, col=column,
        )  # fmt: skip
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(title="logit")
    top, bottom = (
        np.concatenate([*rows[rows["side"] == side]["logits"], [0.0]]) for side in ("top", "bottom")
    )
    reach = 1.03 * max(np.abs(top).max(), np.abs(bottom).max()) or 1.0
    one_sided = top.min() >= 0 >= bottom.max()
    figure.update_xaxes(range=[0 if one_sided else -reach, reach], col=1)
    figure.update_xaxes(range=[-reach, 0 if one_sided else reach], col=2)
    return laid_out(figure, f"{literal(rows['name'].iloc[0])} through the LM head", height=420)


def shares(rows: pd.DataFrame) -> go.Figure:
    """The share of each layer's vectors above chance (`neurons.layers.above_chance`), by kind."""
    figure = go.Figure()
    for kind, colour in (("up", BLUE), ("gate", ORANGE), ("down", GREY)):
        part = rows[rows["kind"] == kind]
        if len(part):
            figure.add_scatter(
                x=part["layer"], y=part["share"], name=kind, mode="lines+markers",
                line_color=colour, error_y=interval_bars(part, "share"),
            )  # fmt: skip
    figure.update_xaxes(title="layer")
    figure.update_yaxes(title="share above chance", rangemode="tozero", tickformat=".0%")
    return laid_out(figure, "Vectors that spell more than random ones do", height=340, legend=True)


def layer_density(counts: pd.DataFrame, statistic: str) -> go.Figure:
    """How a statistic is spread in each layer, one panel a kind (`neurons.search.density`)."""
    kinds = [k for k in ("up", "gate", "down") if k in set(counts["kind"])]
    figure = make_subplots(1, len(kinds), shared_yaxes=True, subplot_titles=kinds)
    for column, kind in enumerate(kinds, start=1):
        part = counts[counts["kind"] == kind]
        grid = part.pivot(index="value", columns="layer", values="count").sort_index()
        share = grid / grid.sum()
        figure.add_heatmap(
            x=share.columns,
            y=share.index,
            z=np.log10(share.to_numpy()),  # the tails are where the specialised neurons are
            customdata=share.to_numpy(),
            coloraxis="coloraxis",
            hovertemplate=f"layer %{{x}}<br>{statistic} %{{y:.3g}}<br>share %{{customdata:.2%}}"
            "<extra></extra>",
            row=1,
            col=column,
        )
    figure.update_xaxes(title="layer")
    figure.update_yaxes(title=statistic, col=1)
    ticks = {"tickvals": [-4, -3, -2, -1, 0], "ticktext": ["0.01%", "0.1%", "1%", "10%", "100%"]}
    colorbar = {"title": "share of<br>the layer", **ticks}
    figure.update_layout(coloraxis={"colorscale": SEQUENTIAL, "colorbar": colorbar})
    return laid_out(figure, f"{statistic} of every vector, layer by layer", height=380)


def standing(values: pd.Series, here: dict[str, float], statistic: str, among: str) -> go.Figure:
    """A histogram of `values` with the places of `here` (label -> value) marked."""
    counts, edges = np.histogram(values.dropna(), 80)
    centres, widths = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    figure = go.Figure(
        go.Bar(x=centres, y=counts, width=widths, marker_color=GREY, showlegend=False)
    )
    for (name, value), colour in zip(here.items(), (BLUE, ORANGE), strict=False):
        share = (values < value).mean()
        figure.add_scatter(
            x=[value, value], y=[0, counts.max()], mode="lines",
            line={"color": colour, "width": 2},
            name=f"{literal(name)}: {value:.3g}, above {share:.1%}",
        )  # fmt: skip
    figure.update_layout(xaxis_title=statistic, yaxis_title="rows", bargap=0)
    laid_out(figure, f"{statistic} among {literal(among)}", height=300, legend=True)
    return figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"})


def _bars(rows: pd.DataFrame, name: str) -> dict[str, Any] | None:
    """Error bars of a column that has an interval beside it, None of one that has not."""
    if f"{name}_low" not in rows or rows[f"{name}_low"].isna().any():
        return None
    return interval_bars(rows, name, type="data", symmetric=False)


def clamp_curve(rows: pd.DataFrame, neuron: str, word: str, at: float | None = None) -> go.Figure:
    """A word's probability over the values a neuron is held at: `neurons.clamp`'s table of means
    (with bars for the intervals, where there are any), or of one prompt's values.

    The dashed line is the unclamped model; `at` marks one value.

    Raises:
        ValueError: `rows` are values of several prompts.
    """
    if rows["value"].duplicated().any():
        raise ValueError("a value is held in several rows: give the means, or one prompt's rows")
    held = rows[rows["value"].notna()].sort_values("value")
    plain = float(rows[rows["value"].isna()]["probability"].iloc[0])
    line = go.Scatter(x=held["value"], y=held["probability"], mode="lines+markers", line_color=BLUE)
    line.error_y = _bars(held, "probability")
    figure = go.Figure(line)
    ends = [held["value"].min(), held["value"].max()]
    figure.add_scatter(
        x=ends, y=[plain, plain], mode="lines+text", line={"dash": "dash", "color": GREY},
        text=["not clamped", ""], textposition="top right", textfont_color=GREY,
    )  # fmt: skip
    if at is not None:
        figure.add_vline(at, line_color=ORANGE)
    figure.update_xaxes(title=f"activation of {literal(neuron)} held at")
    figure.update_yaxes(title="probability", type="log", exponentformat="power")
    laid_out(figure, f"'{label(word)}' as the next token", height=340)
    above = (
        "The probability of the word while the neuron is held at a value; dashed is the model as "
        "it is. A neuron for the word raises it one way and lowers it the other. A surprise would "
        "be a flat line: the neuron would not matter here."
    )
    return said(figure, above, _most_held(held, plain))


def _most_held(held: pd.DataFrame, plain: float) -> str:
    """At which value the probability is largest, beside that of the model as it is."""
    known = held.dropna(subset=["probability"])
    if known.empty:
        return ""
    best = row_at_most(known, known["probability"])
    times = f"{best['probability'] / plain:,.3g} times " if plain > 0 else "beside "
    where = f"The most is at {best['value']:g}"
    if len(known) > 1 and known["probability"].nunique() == 1:
        where = "It is the same at every value"
    return f"{where}: {best['probability']:.2g}, {times}the {plain:.2g} of the model as it is."


def clamp_rows(run: Run) -> tuple[str, pd.DataFrame]:
    """The table that a clamp run's curve is drawn of, by its name: the means over its prompts, else
    (a run of an earlier version, of one prompt) the values."""
    name = "curve/means" if run.has("curve/means") else "curve/values"
    return name, run.table(name)


def agreement_map(table: pd.DataFrame) -> go.Figure:
    """Agreement of two atlases by layer, kind and side (`neurons.agree.agreement`)."""
    rows = table.assign(row=(table["kind"] + " " + table["side"]).map(literal))
    grid = rows.pivot(index="row", columns="layer", values="agreement")
    figure = heat_map(grid, 0, 1, "layer %{x}, %{y}: %{z:.1%}", colorbar={"tickformat": ".0%"})
    figure.update_xaxes(title="layer")
    return laid_out(figure, "Neurons with the same first token", height=320)


def removal_curves(effects: pd.DataFrame, concept: str) -> go.Figure:
    """One concept of `neurons.tars`' effects table: log probabilities and divergence by edits. Bars
    are the 95 % intervals over prompts, of the closest neurons' lines."""
    rows = effects[effects["concept"] == concept].sort_values("edits")
    neighbour = str(rows["neighbour"].iloc[0])
    figure = make_subplots(1, 2, subplot_titles=["log probability", "median KL on ordinary text"])
    for neurons, dash in (("closest", "solid"), ("matched", "dash"), ("random", "dot")):
        part = rows[rows["neurons"] == neurons]
        what = "" if neurons == "closest" else f", {neurons} neurons"
        lines = [
            (f"{label(concept)}{what}", "logprob", ORANGE, 1),
            (f"{label(neighbour)}{what}", "neighbour_logprob", BLUE, 1),
            (f"KL{what}", "kl_median", GREY, 2),
        ]
        for name, values, colour, column in lines:
            figure.add_scatter(
                x=part["edits"], y=part[values], name=name, mode="lines+markers",
                error_y=_bars(part, values) if neurons == "closest" else None,
                line={"color": colour, "dash": dash}, row=1, col=column,
            )  # fmt: skip
    figure.update_xaxes(title="neurons turned")
    laid_out(figure, f"Removing '{label(concept)}'", height=400)
    figure.update_layout(showlegend=True, legend={"orientation": "h", "y": -0.25})
    above = (
        "What is lost as more neurons are turned: the concept (orange) should fall, its neighbour "
        "(blue) and ordinary text (grey, the KL) should stay. Dashed and dotted are control "
        "neurons. A surprise would be a control that does as much."
    )
    own = rows[rows["neurons"] == "closest"]
    return said(figure, above, _removed(own) if len(own) > 1 else "")


def _removed(own: pd.DataFrame) -> str:
    """What the most edits did, of the rows of one concept by number of edits."""
    first, last = own.iloc[0], own.iloc[-1]
    words = (
        f"{int(last['edits']):,} neurons move the log probability of the concept by "
        f"{last['logprob'] - first['logprob']:+.2f} nats and of "
        f"{visible(str(last['neighbour']))} by "
        f"{last['neighbour_logprob'] - first['neighbour_logprob']:+.2f}, at a median KL of "
        f"{last['kl_median']:.2g} nats."
    )
    if "probability" not in own:
        return words
    moved = last[["logprob", "probability"]] - first[["logprob", "probability"]]
    parted = moved["logprob"] * moved["probability"] < 0
    words += f" Its mean probability goes from {first['probability']:.2g} to "
    words += f"{last['probability']:.2g}."
    if parted:
        words += (
            " The two part ways: the mean of logs is ruled by the prompts where the word is rare, "
            "the mean probability by the few where it is likely."
        )
    return words


def of_run(run: Run) -> Figures:
    """The figures of a run of this analysis, by name."""
    if run.study == "neurons.atlas":
        shown: Figures = {"density": lambda: layer_density(density(run, "z"), "z")}
        enough = run.config.get("random", 0) >= needed(run)
        return shown | ({"shares": lambda: shares(above_chance(run))} if enough else {})
    if run.study == "neurons.clamp":
        neuron, word = str(run.config["neuron"]), str(run.manifest["word"])
        return {"curve": lambda: clamp_curve(clamp_rows(run)[1], neuron, word)}
    if run.study == "neurons.tars":
        effects = run.table("tars/effects")
        concepts = dict.fromkeys(effects["concept"])
        return {f"removal-{c}": partial(removal_curves, effects, c) for c in concepts}
    if run.study == "neurons.effects":
        table = run.table("effects/neurons")
        names = [f"{row['name']} {row['word']}" for row in table.to_dict("records")]
        return {"gains": lambda: gains(table, names, "neurons of its layer")}
    return {}
