"""Pictures of a text under the microscope."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go

from ..plots import BLUE, GREY, ORANGE, Figures, label, laid_out, literal
from .names import ATTENTION, BIAS, EMBEDDING, KINDS, MLP, part_name

if TYPE_CHECKING:
    from ..runs.store import Run

COLOURS = {EMBEDDING: "#5a9e6f", ATTENTION: BLUE, MLP: ORANGE, BIAS: GREY}
TOTAL = "the logit"
WORDS = 3
"""Tokens beside the name of a neuron or head."""


def waterfall(parts: pd.DataFrame, target: str) -> go.Figure:
    """Every part's direct contribution, each bar where the one before it ends; the last bar is
    their sum (`tables.part_table` of one position)."""
    ends = parts["contribution"].cumsum()
    starts, names = (
        ends - parts["contribution"],
        list(map(part_name, parts["kind"], parts["layer"])),
    )
    figure = go.Figure()
    for kind in KINDS:
        own = (parts["kind"] == kind).to_numpy()
        figure.add_bar(
            x=[name for name, here in zip(names, own, strict=True) if here],
            y=parts["contribution"][own],
            base=starts[own],
            name=kind,
            marker_color=COLOURS[kind],
            customdata=ends[own],
            hovertemplate="%{x}: %{y:+.3f}, so far %{customdata:.3f}<extra></extra>",
        )
    figure.add_bar(
        x=[TOTAL], y=[float(ends.iloc[-1])], name=TOTAL, marker_color="#5b5f66",
        hovertemplate="all together: %{y:.3f}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(categoryorder="array", categoryarray=[*names, TOTAL], tickangle=-60)
    figure.update_yaxes(title="logits, added up")
    figure.update_layout(barmode="overlay")
    title = f"Direct contributions to {literal(target)}"
    return laid_out(figure, title, height=420, legend=True)


def _plain(figure: go.Figure, height: int, legend: bool = False) -> go.Figure:
    """Without a title: the page says what it is."""
    above = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"}
    return laid_out(figure, "", height, legend).update_layout(
        margin_t=40 if legend else 20, legend=above
    )


def contributions(rows: pd.DataFrame, value: str = "contribution", most: int = 15) -> go.Figure:
    """The first of heads or neurons, with the tokens that they raise there (↑), or lower (↓) where
    their contribution is negative.

    Args:
        rows: with name, contribution, `value`, and raises and lowers where there are such.
        value: contribution or activation.
    """
    first = rows.head(most).iloc[::-1]
    names = [_named(row) for row in first.to_dict("records")]
    colours = [BLUE if each > 0 else ORANGE for each in first[value]]
    figure = go.Figure(
        go.Bar(
            x=first[value], y=names, orientation="h", marker_color=colours,
            hovertemplate="%{y}<br>%{x:+.4f}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_xaxes(title="contribution, logits" if value == "contribution" else value)
    figure.update_yaxes(automargin=True, type="category")
    return _plain(figure, height=120 + 24 * len(first))


def _named(row: dict[Any, Any]) -> str:
    """A name, and a few tokens that it raises; those that it lowers where its contribution is
    negative."""
    side, sign = ("lowers", "↓") if row["contribution"] < 0 else ("raises", "↑")
    said = "  ".join(label(str(token)) for token in list(row.get(side, ()))[:WORDS])
    return f"{literal(row['name'])}  {sign} {said}" if said else literal(row["name"])


def next_tokens(row: pd.Series, following: str = "") -> go.Figure:
    """What the model says after one token; the text's own next token has another colour.

    Args:
        row: of `tokens.token_table`.
        following: the text's next token; "" at its end.
    """
    tokens = list(row["next"])[::-1]
    chances = list(row["next_probabilities"])[::-1]
    names = [f"{len(tokens) - n}  {label(token)}" for n, token in enumerate(tokens)]
    colours = [ORANGE if following and token == following else BLUE for token in tokens]
    figure = go.Figure(
        go.Bar(
            x=chances, y=names, orientation="h", marker_color=colours,
            hovertemplate="%{y}: %{x:.4f}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_xaxes(title="probability")
    figure.update_yaxes(automargin=True, type="category")
    return _plain(figure, height=110 + 24 * len(tokens))


def surprises(tokens: pd.DataFrame) -> go.Figure:
    """How much each token surprised the model, and how sure the model was before it."""
    given = tokens.iloc[1:]
    x = given["position"]
    names = [label(token) for token in given["token"]]
    figure = go.Figure()
    figure.add_bar(
        x=x, y=given["surprise"], name="surprise of the token", marker_color=BLUE,
        customdata=names, hovertemplate="%{x} %{customdata}: %{y:.2f} nats<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=x, y=tokens["entropy"].iloc[:-1], name="entropy before it", mode="markers",
        marker={"color": ORANGE, "symbol": "line-ew-open", "size": 14},
        customdata=names, hovertemplate="before %{x} %{customdata}: %{y:.2f} nats<extra></extra>",
    )  # fmt: skip
    if len(given) <= 60:
        figure.update_xaxes(tickvals=list(x), ticktext=names)
    figure.update_yaxes(title="nats", rangemode="tozero")
    return _plain(figure, height=320, legend=True)


def differing(rows: pd.DataFrame, most: int = 12) -> go.Figure:
    """Contributions in both texts, of what differs most (`differences.differences`)."""
    first = rows.head(most).iloc[::-1]
    figure = go.Figure()
    names = [literal(name) for name in first["name"]]
    for column, title, colour in (("there", "other text", GREY), ("here", "this text", BLUE)):
        figure.add_bar(
            x=first[column], y=names, orientation="h", name=title, marker_color=colour,
            hovertemplate="%{y}: %{x:+.4f}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title="contribution, logits")
    figure.update_yaxes(automargin=True, type="category")
    return _plain(figure, height=140 + 30 * len(first), legend=True)


def of_run(run: Run) -> Figures:
    """The figures of a run by name, at its chosen position."""
    at = int(run.manifest["position"])
    made: Figures = {
        "surprise": lambda: surprises(run.table("tokens")),
        "next": partial(_next, run, at),
        "parts": partial(_parts, run, at),
        "heads": lambda: contributions(of_position(run.table("heads"), at)),
        "neurons": lambda: contributions(by_contribution(of_position(run.table("neurons"), at))),
        "lens": partial(_lens, run),
    }
    if run.has("differences"):
        made |= {f"differing {of}s": partial(_differing, run, of) for of in OF}
    return made


OF = ("part", "head", "neuron")
"""What differences are of."""


def of_position(rows: pd.DataFrame, position: int) -> pd.DataFrame:
    return rows[rows["position"] == position].reset_index(drop=True)


def by_contribution(neurons: pd.DataFrame) -> pd.DataFrame:
    """Those among the first by contribution, in order."""
    return _by(neurons, "by_contribution")


def by_activation(neurons: pd.DataFrame) -> pd.DataFrame:
    """Those among the first by activation, in order."""
    return _by(neurons, "by_activation")


def _by(neurons: pd.DataFrame, place: str) -> pd.DataFrame:
    return neurons[neurons[place] > 0].sort_values(place, ignore_index=True)


def _next(run: Run, at: int) -> go.Figure:
    tokens = run.table("tokens")
    following = tokens["token"].iloc[at + 1] if at + 1 < len(tokens) else ""
    return next_tokens(tokens.iloc[at], following)


def _parts(run: Run, at: int) -> go.Figure:
    rows = of_position(run.table("parts"), at)
    return waterfall(rows, str(rows["target"].iloc[0]))


def _lens(run: Run) -> go.Figure:
    from ..lens import figures

    return figures.grid(run.table("cells"))


def _differing(run: Run, of: str) -> go.Figure:
    rows = run.table("differences")
    return differing(rows[rows["of"] == of])
