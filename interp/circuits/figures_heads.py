"""Pictures of heads and of activation patching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ..columns import column
from ..model.vocabulary import visible
from ..plots import (
    DIVERGING,
    SEQUENTIAL,
    Figures,
    heat_map,
    label,
    laid_out,
    row_at_most,
    said,
    whole_ticks,
)
from ..runs.store import Run

SHADES = {
    "weight": "attention",
    "length": "length of what is added",
    "direct": "direct effect on the target",
    "total": "effect through all later layers",
}


TITLES = {
    "weight": "Where each token looks",
    "length": "How much is moved from where",
    "direct": "What that does to the target, directly",
    "total": "What that does to the target, through all later layers",
}
READ = {
    "weight": "Each row is a token that looks, each column one that it looks at; a row adds up to "
    "1. Most heads rest on the first token when they have nothing to do. A surprise would be a row "
    "that looks far back at one token.",
    "length": "The attention times what is read there: a strong colour moves much. A surprise "
    "would be much attention to a token that moves nothing, or little to one that moves much.",
    "direct": "Logits that each move adds to the target (blue) or takes (orange) through the final "
    "norm and head alone. A surprise would be a large cell above the last row.",
    "total": "The same with all that later layers make of it. A surprise would be a cell that is "
    "blue here and orange in the direct effect.",
}
"""The sentences above."""


def pattern(cells: pd.DataFrame, shade: str = "weight") -> go.Figure:
    """Queries by keys."""
    grid = cells.pivot(index="query", columns="key", values=shade)
    signed = shade in ("direct", "total")
    top = max(float(grid.abs().max().max()), 1e-12)
    figure = heat_map(
        grid, -top if signed else 0, top,
        "%{customdata[0]} looks at %{customdata[1]}<br>" + SHADES[shade] + " %{z:.3g}",
        DIVERGING if signed else SEQUENTIAL, customdata=_pairs(cells, "query", "key"),
        colorbar={"title": SHADES[shade].replace(" of ", "<br>of ")},
    )  # fmt: skip
    tokens = list(cells.drop_duplicates("query").sort_values("query")["query_token"])
    _ticks(figure, "x", list(grid.columns), tokens)
    _ticks(figure, "y", list(grid.index), tokens)
    figure.update_yaxes(autorange="reversed", title="query")
    figure.update_xaxes(title="key", side="bottom")
    laid_out(figure, TITLES[shade], height=160 + 22 * len(grid))
    if not (cells[shade].abs() > 0).any():
        return said(figure, READ[shade])
    row = row_at_most(cells, cells[shade].abs())
    found = (
        f"The most is of {visible(row['query_token'])} (position {row['query']}) for "
        f"{visible(row['key_token'])} (position {row['key']}): {row[shade]:.3g}."
    )
    return said(figure, READ[shade], found)


def patched(cells: pd.DataFrame, position: int | None = None) -> go.Figure:
    """Layers by positions, or by heads: how much of the gap each place moves.

    Args:
        position: which, where each head was patched at each position.
    """
    heads = bool((cells["head"] >= 0).any())
    if position is not None:
        cells = cells[cells["position"] == position]
    across = "head" if heads else "position"
    grid = cells.pivot(index="layer", columns=across, values="moved")
    top = max(1.0, float(grid.abs().max().max()))
    values = cells.pivot(index="layer", columns=across, values="value")
    figure = heat_map(
        grid, -top, top,
        f"layer %{{y}}, {across} %{{x}}<br>moved %{{z:.3f}}<br>target %{{customdata:.3f}}",
        DIVERGING, customdata=values.to_numpy(), colorbar={"title": "moved"},
    )  # fmt: skip
    if not heads:
        row = cells.drop_duplicates("position").sort_values("position")
        names = [_both(*pair) for pair in zip(row["token"], row["other"], strict=True)]
        _ticks(figure, "x", list(grid.columns), names, done=True)
    else:
        whole_ticks(figure, "x", grid.columns)
    whole_ticks(figure, "y", grid.index)
    figure.update_yaxes(title="layer")
    figure.update_xaxes(title="head" if heads else "token, and what is patched in")
    laid_out(figure, "Share of the gap moved", height=180 + 16 * len(grid))
    above = (
        "Blue moves the target towards the other prompt: 1 all the way, 0 not at all. Each place "
        "is patched alone, so shares need not add up. A surprise would be a place beyond 1"
        + ("." if heads else ", or a token that differs in neither prompt.")
    )
    cells = cells.dropna(subset=["moved"])
    if not (cells["moved"].abs() > 0).any():
        return said(figure, above, "No place moves any of the gap." if len(cells) else "")
    most = row_at_most(cells, cells["moved"].abs())
    where = f"head {most['head']}" if heads else f"position {most['position']}"
    found = (
        f"The most is at layer {most['layer']}, {where}: {most['moved']:.2f} of the gap. "
        f"{int((cells['moved'].abs() >= 0.5).sum()):,} of {len(cells):,} places move at least "
        "half of it."
    )
    return said(figure, above, found)


def roles(heads: pd.DataFrame, score: str) -> go.Figure:
    """Layers by heads, coloured by one score of `circuits.roles`."""
    grid = heads.pivot(index="layer", columns="head", values=score)
    signed = score == "copying"
    colours = DIVERGING if signed else SEQUENTIAL
    hover = f"head %{{y}}.%{{x}}<br>{score} %{{z:.3f}}"
    figure = heat_map(grid, -1 if signed else 0, 1, hover, colours)
    whole_ticks(figure, "x", grid.columns)
    whole_ticks(figure, "y", grid.index)
    figure.update_xaxes(title="head")
    figure.update_yaxes(title="layer")
    laid_out(figure, f"Every head: {score}", height=180 + 16 * len(grid))
    above = (
        f"{column(score).help} Random tokens have no meaning: what a head does by meaning alone "
        "does not show. A surprise would be a model without a single head near 1."
    )
    heads = heads.dropna(subset=[score])
    if heads.empty:
        return said(figure, above)
    most = row_at_most(heads, heads[score])
    found = (
        f"The highest is head {int(most['layer'])}.{int(most['head'])} with {most[score]:.2f}; "
        f"{int((heads[score] >= 0.5).sum()):,} of {len(heads):,} heads have at least 0.5."
    )
    return said(figure, above, found)


def of_run(run: Run) -> Figures:
    """The figures of a run by name; none of another study."""
    if run.study == "circuits.patch":
        cells = run.table("cells")
        positions = sorted(set(cells["position"]))
        if len(positions) == 1 or not (cells["head"] >= 0).any():
            return {"moved": lambda: patched(cells)}
        return {f"position {p}": lambda p=p: patched(cells, p) for p in positions}  # type: ignore[misc]
    if run.study == "circuits.head":
        cells = run.table("pattern")
        known = [shade for shade in SHADES if cells[shade].notna().any()]
        return {shade: lambda shade=shade: pattern(cells, shade) for shade in known}  # type: ignore[misc]
    if run.study == "circuits.roles":
        heads = run.table("heads")
        scores = [name for name in heads.columns if name not in ("layer", "head")]
        return {score: lambda score=score: roles(heads, score) for score in scores}  # type: ignore[misc]
    return {}


def _pairs(cells: pd.DataFrame, row: str, column: str) -> list[list[list[str]]]:
    """The tokens of both sides, cell by cell; a cell that is not there is empty."""
    tokens = dict(zip(cells[row], map(label, cells[f"{row}_token"]), strict=True))
    return [[[tokens[q], tokens[s]] for s in tokens] for q in tokens]


def _both(token: str, other: str) -> str:
    if not token:
        return "all"
    return label(token) if token == other else f"{label(token)} ← {label(other)}"


def _ticks(
    figure: go.Figure, axis: str, at: Sequence[Any], texts: Sequence[str], done: bool = False
) -> None:
    """Tokens along an axis; those that are the same stay apart."""
    shown = list(texts) if done else [label(text) for text in texts]
    update = figure.update_xaxes if axis == "x" else figure.update_yaxes
    update(tickvals=at, ticktext=shown, automargin=True)
