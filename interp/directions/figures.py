"""Figures of directions at work: next tokens before and after an edit, cosines of a set,
tokens by score."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
import plotly.graph_objects as go

from ..errors import UserError
from ..model.vocabulary import visible
from ..plain_text import printable
from ..plots import BLUE, DIVERGING, GREY, ORANGE, label, laid_out, literal, said

if TYPE_CHECKING:
    from torch import Tensor


def next_tokens(rows: pd.DataFrame) -> go.Figure:
    """Probabilities of the next token, `before` and `after` an edit (columns with `token`; without
    an edit there is no `after`)."""
    names = [f"{i + 1}  {label(token)}" for i, token in enumerate(rows["token"])]
    figure = go.Figure()
    for column, colour in (("before", GREY), ("after", ORANGE)):
        if column in rows:
            bar = {"orientation": "h", "name": column, "marker_color": colour}
            figure.add_bar(y=names, x=rows[column], **bar)
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(title="probability")
    laid_out(figure, "The next token", height=60 + 34 * max(len(rows), 4))
    return figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.08})


LONGEST = 24
"""Characters of a name on an axis."""


def cosine_map(cosine: Tensor, rows: list[str], columns: list[str]) -> go.Figure:
    """Cosines [n, m] of two sets of directions. Cells stand by number, since two may have one name;
    a long name is cut in its middle on the axis, and whole on hover."""
    figure = go.Figure(
        go.Heatmap(
            z=cosine.numpy(),
            x=list(range(len(columns))),
            y=list(range(len(rows))),
            customdata=[[(_named(row), _named(column)) for column in columns] for row in rows],
            zmin=-1,
            zmax=1,
            colorscale=DIVERGING,
            hovertemplate="%{customdata[0]}<br>%{customdata[1]}<br>cosine %{z:.3f}<extra></extra>",
        )
    )
    for axis, names in ((figure.layout.xaxis, columns), (figure.layout.yaxis, rows)):
        axis.update(tickvals=list(range(len(names))), ticktext=[_named(cut(n)) for n in names])
    figure.update_yaxes(autorange="reversed", automargin=True)
    return laid_out(figure, "Cosines", height=min(160 + 24 * len(rows), 700))


def _named(name: str) -> str:
    """A token with its blanks made visible; a name of several words as it is."""
    return literal(name) if " " in name.strip() and name == name.strip() else label(name)


def cut(name: str) -> str:
    """A long name without its middle."""
    half = LONGEST // 2 - 1
    return name if len(name) <= LONGEST else f"{name[:half]} … {name[-half:]}"


def token_bars(decoded: pd.Series) -> go.Figure:
    """The top and bottom tokens of a direction and their logits, on one scale (a row of
    `Directions.decode`)."""
    figure = go.Figure()
    logits = [*decoded["top_logits"], *decoded["bottom_logits"]]
    largest = max((abs(x) for x in logits), default=0.0) or 1.0
    for side, colour in (("top", BLUE), ("bottom", ORANGE)):
        names = [f"{i + 1}  {label(token)}" for i, token in enumerate(decoded[side])]
        figure.add_bar(
            y=names, x=decoded[f"{side}_logits"], orientation="h", name=side, marker_color=colour,
            xaxis="x" if side == "top" else "x2", yaxis="y" if side == "top" else "y2",
            hovertemplate="%{y}: %{x:.3g}<extra></extra>",
        )  # fmt: skip
    shared = {"range": [-1.05 * largest, 1.05 * largest]}
    rows = {"autorange": "reversed", "automargin": True}
    figure.update_layout(
        yaxis={"domain": [0.56, 1.0], **rows},
        yaxis2={"domain": [0.0, 0.44], **rows},
        xaxis={"anchor": "y", **shared},
        xaxis2={"anchor": "y2", "title": "logit", **shared},
    )
    height = 130 + 44 * len(decoded["top"])
    return laid_out(figure, "What it raises, and what it lowers", height=height, legend=False)


def coloured_tokens(tokens: pd.DataFrame) -> str:
    """Texts as HTML; a token's `score` colours its background, blue above 0, orange below. The
    first token of each text has no colour: models attend to it whatever it is.

    Raises:
        UserError: there is no token.
    """
    if not tokens["text"].notna().any():
        raise UserError("there are no tokens to colour: make the run again with --fresh")
    inner = tokens[tokens["position"] > 0]["score"].abs()
    top = max(float(inner.max()) if len(inner) else 0.0, 1e-30)
    out = []
    for _, rows in tokens.groupby("text"):
        spans = []
        for position, token, score in rows[["position", "token", "score"]].itertuples(index=False):
            strength = min(abs(score) / top, 1.0) if position else 0.0
            colour = "59,111,182" if score > 0 else "217,130,43"
            lines = (html.escape(printable(line)) for line in token.split("\n"))
            shown = "⏎<br>".join(lines).replace(" ", "&nbsp;")
            spans.append(
                f'<span title="{score:.3f}" style="background:rgba({colour},{strength:.2f})">'
                f"{shown}</span>"
            )
        style = "font-family:monospace;line-height:1.9;overflow-wrap:anywhere"
        out.append(f'<p style="{style}">{"".join(spans)}</p>')
    return "".join(out)


def largest_said(tokens: pd.DataFrame) -> str:
    """Where the `score` of one text's tokens is largest, in size, of those that have a colour."""
    inner = tokens[tokens["position"] > 0]
    if inner.empty:
        return "The text has one token, the first, whose score is no guide."
    best = inner.iloc[int(inner["score"].abs().to_numpy().argmax())]
    return (
        f"The largest, in size, after the first token is {best['score']:.3g} at "
        f"{visible(str(best['token']))} (position {best['position']})."
    )


def gains(rows: pd.DataFrame, names: Sequence[str], controls: str) -> go.Figure:
    """What holding each neuron or latent adds to the log probability of its words, beside the mean
    and the maximum of its controls (columns gain, control_mean, control_max); the largest first.

    Args:
        controls: what they are, "neurons of its layer".
    """
    rows = rows.assign(name=[literal(name) for name in names]).sort_values("gain")
    figure = go.Figure()
    for column, name, mark in (
        ("control_mean", f"mean of other {controls}", {"color": GREY, "symbol": "circle-open"}),
        ("control_max", f"maximum of other {controls}", {"color": GREY, "symbol": "diamond-open"}),
        ("gain", "itself", {"color": BLUE, "size": 9}),
    ):
        figure.add_scatter(
            x=rows[column], y=rows["name"], mode="markers", name=name, marker=mark,
            hovertemplate="%{y}: %{x:.2f} nats<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title="largest gain in log probability over the sweep, nats")
    figure.update_yaxes(title="", type="category")
    title = "Do they raise their words?"
    laid_out(figure, title, height=160 + 22 * len(rows), legend=True)
    above = (
        "What holding each one adds to the log probability of its words; hollow marks are "
        f"{controls} drawn at random. A surprise would be a blue dot left of its controls: it "
        "would not do what its words say."
    )
    known = rows.dropna(subset=["gain", "control_max"])
    raised = int(((known["gain"] > known["control_max"]) & (known["gain"] > 0)).sum())
    found = f"{raised:,} of {len(known):,} raise their words, and more than every control."
    return said(figure, above, found if len(known) else "")
