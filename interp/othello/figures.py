"""Figures of the OthelloGPT analysis: boards, tiles, curves by layer, edits by scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..plain_text import printable
from ..plots import BLUE, GREY, ORANGE, SEQUENTIAL, Figures, laid_out, literal, row_at_most, said
from ..runs.store import Run
from .board_labels import TILES
from .findings import table

GREEN, INK = "#3f7d58", "#1f3a5f"
READERS = {
    "probe": INK,
    "topk": BLUE,
    "l1": ORANGE,
    "batchtopk": "#2a9d8f",
    "jumprelu": "#8e5aa8",
    "matryoshka": "#5f8a3a",
    "gated": "#b5487f",
    "neurons": "#8c564b",
    "random directions": "#7d8f8a",
    "random model probe": "#6b84b3",
    "random model neurons": "#b0875f",
    "majority": GREY,
    "ply": "#c44e52",
    "occupied": "#7f7f7f",
}
"""Colours of the readers, in the order of the legend."""
DASHES = {
    "random directions": "dot",
    "random model probe": "dash",
    "random model neurons": "dashdot",
    "majority": "dot",
    "ply": "dot",
    "occupied": "longdash",
}
"""Of the controls, so that no two look alike; a reader's line is whole."""
PANELS = {
    "accuracy": "accuracy of the board",
    "coverage": "coverage (mean F1)",
    "reconstruction": "reconstruction (F1)",
    "auroc_own": "AUROC, own",
    "auroc_sound": "AUROC, soundly stable",
    "cosine_probe": "cosine with the probe",
}


def othello_board(
    states: npt.NDArray[np.integer],
    title: str,
    chances: npt.NDArray[np.floating] | None = None,
    legal: npt.NDArray[np.bool_] | None = None,
    ringed: npt.NDArray[np.bool_] | None = None,
    wrong: npt.NDArray[np.bool_] | None = None,
) -> go.Figure:
    """A board of 64 tiles: 0 empty, 1 black, 2 white, 3 both (a contradiction, drawn grey).

    Args:
        chances: probability of a next move on each tile, written on empty tiles from 1 % on.
        legal: tiles with a small dot.
        ringed: discs with a ring, the stable ones.
        wrong: tiles with a red frame.
    """
    squares = np.arange(64)
    ring = np.zeros(64, bool) if ringed is None else ringed
    fills = np.array(["rgba(0,0,0,0)", "#111111", "#f7f7f7", "#8d8d8d"])[states]
    figure = go.Figure()
    figure.add_scatter(
        x=squares % 8, y=squares // 8, mode="markers", customdata=TILES,
        marker={
            "size": 30, "color": fills, "opacity": 1,
            "line": {"width": np.where(ring, 4, np.where(states > 0, 1, 0)),
                     "color": np.where(ring, "#f2c14e", "#222222")},
        },
        hovertemplate="%{customdata}<extra></extra>",
        unselected={"marker": {"opacity": 1}},
    )  # fmt: skip
    if legal is not None:
        at = squares[legal]
        figure.add_scatter(x=at % 8, y=at // 8, mode="markers", hoverinfo="skip",
                           marker={"size": 7, "color": "#f2c14e"})  # fmt: skip
    if chances is not None:
        at = squares[(chances >= 0.01) & (states == 0)]
        figure.add_scatter(
            x=at % 8, y=at // 8 + 0.28, mode="text", hoverinfo="skip",
            text=[f"{100 * chances[s]:.0f}" for s in at], textfont={"color": "white", "size": 11},
        )  # fmt: skip
    frames = [] if wrong is None else [_frame(s % 8, s // 8) for s in squares[wrong].tolist()]
    axis = {
        "range": [-0.5, 7.5], "tickvals": list(range(8)), "fixedrange": True, "showgrid": False,
        "zeroline": False, "constrain": "domain",
    }  # fmt: skip
    figure.update_xaxes(**axis, ticktext=list("abcdefgh"))
    figure.update_yaxes(**axis | {"range": [7.5, -0.5]}, ticktext=list("12345678"), scaleanchor="x")
    # all shapes at once: adding them one by one takes time that grows with their square
    figure.update_layout(plot_bgcolor=GREEN, dragmode=False, shapes=[*frames, *_GRID])
    return laid_out(figure, title, height=430)


def _frame(x: int, y: int) -> dict[str, Any]:
    corners = {"x0": x - 0.47, "x1": x + 0.47, "y0": y - 0.47, "y1": y + 0.47}
    return {"type": "rect", **corners, "line": {"color": "#e4572e", "width": 3}}


_LINE = {"type": "line", "line": {"color": "#2c5a3f", "width": 1}, "layer": "below"}
_GRID = [
    {**_LINE, f"{a}0": k - 0.5, f"{a}1": k - 0.5, f"{b}0": -0.5, f"{b}1": 7.5}
    for k in range(9)
    for a, b in ("xy", "yx")
]


def tile_maps(values: dict[str, npt.NDArray[np.floating]], title: str, top: float = 1) -> go.Figure:
    """An 8 x 8 map per name (values [64]), all on one scale from 0 to `top`."""
    figure = make_subplots(
        1, len(values), subplot_titles=list(map(literal, values)), horizontal_spacing=0.04
    )
    for column, part in enumerate(values.values(), start=1):
        figure.add_heatmap(
            x=list("abcdefgh"), y=list(range(1, 9)), z=np.asarray(part, float).reshape(8, 8),
            coloraxis="coloraxis", row=1, col=column,
            hovertemplate="%{x}%{y}: %{z:.3f}<extra></extra>",
        )  # fmt: skip
    figure.update_yaxes(autorange="reversed", tickvals=list(range(1, 9)))
    figure.update_layout(coloraxis={"colorscale": SEQUENTIAL, "cmin": 0, "cmax": top})
    laid_out(figure, title, height=300)
    above = (
        "The 64 tiles of the board, one map a label. A surprise would be one strong tile among "
        "weak ones: a part that stands for one tile alone."
    )
    named = [(k, np.asarray(v, float)) for k, v in values.items() if np.isfinite(v).any()]
    best = [f"{printable(str(k))} {np.nanmax(v):.2f} {_where_most(v)}" for k, v in named]
    return said(figure, above, f"The highest: {'; '.join(best)}." if best else "")


def _where_most(values: npt.NDArray[np.floating]) -> str:
    """The tile with the largest of 64 values, or how many tiles have it."""
    (tiles,) = np.nonzero(values == np.nanmax(values))
    return f"at {TILES[int(tiles[0])]}" if len(tiles) == 1 else f"at {len(tiles)} tiles"


def othello_layers(rows: pd.DataFrame) -> go.Figure:
    """A panel per measure, a line per reader, over layers (`othello.findings.table`).

    Bars are the range over seeds or, with one seed, the 95 % interval by game.
    """
    kept = {m: name for m, name in PANELS.items() if (rows["measure"] == m).any()}
    figure = make_subplots(2, 3, subplot_titles=list(kept.values()), vertical_spacing=0.14)
    shown: set[str] = set()
    for k, measure in enumerate(kept):
        part = rows[rows["measure"] == measure]
        for reader, colour in READERS.items():
            line = part[part["reader"] == reader].sort_values("layer")
            if len(line):
                trace = _line(line, reader, colour, reader not in shown)
                figure.add_trace(trace, k // 3 + 1, k % 3 + 1)
                shown.add(reader)
    figure.update_xaxes(title="layer", dtick=1, row=2)
    laid_out(figure, "Linear probes against SAEs, layer by layer", height=640, legend=True)
    above = (
        "What each reader gets of the board from every layer; broken lines are controls. A "
        "surprise would be latents above the probe, or a probe no better than that of a random "
        "model."
    )
    known = rows[rows["measure"] == "accuracy"].dropna(subset=["mean"])
    own, random = (known[known["reader"] == name] for name in ("probe", "random model probe"))
    if own.empty:
        return said(figure, above)
    best = row_at_most(own, own["mean"])
    found = f"The probe is best after layer {int(best['layer'])}: {best['mean']:.1%} of the tiles"
    found += f", of a random model {random['mean'].max():.1%} at most." if len(random) else "."
    return said(figure, above, found)


def _line(line: pd.DataFrame, reader: str, colour: str, in_legend: bool) -> go.Scatter:
    top = line["high"].fillna(line["most"]) - line["mean"]
    bottom = line["mean"] - line["low"].fillna(line["least"])
    dash = DASHES.get(reader, "solid")
    return go.Scatter(
        x=line["layer"], y=line["mean"], name=reader, legendgroup=reader, showlegend=in_legend,
        line={"color": colour, "dash": dash}, mode="lines+markers",
        error_y={"array": top, "arrayminus": bottom, "symmetric": False, "thickness": 1},
        hovertemplate=f"{reader}, layer %{{x}}: %{{y:.3f}}<extra></extra>",
    )  # fmt: skip


def edit_errors(rows: pd.DataFrame, layers: str) -> go.Figure:
    """Errors against the edited board over the length of the added vector.

    Both halves of the positions together, seeds averaged. Dashed: without an edit. Dotted: the
    unedited model against the board as it is, the least that an edit can reach.

    Args:
        rows: the table `errors/table` of `othello.edit`.
        layers: the sweep to draw, "0, 1, 2".
    """
    part = rows[rows["layers"] == layers]
    means = part.groupby(["reader", "scale"], sort=False)[["errors", "errors_own"]].mean()
    figure = go.Figure()
    for reader, colour in {**READERS, "means": "#5b8c5a", "random": GREY}.items():
        if reader in means.index.get_level_values("reader"):
            line = means.loc[reader].sort_index()
            figure.add_scatter(x=line.index, y=line["errors"], name=reader, line_color=colour,
                               mode="lines+markers")  # fmt: skip
    unedited = means.xs(0.0, level="scale").iloc[0]
    figure.add_hline(unedited["errors"], line_dash="dash", line_color=GREY)
    figure.add_hline(unedited["errors_own"], line_dash="dot", line_color=GREY)
    figure.update_xaxes(title="length of the vector added at each layer")
    figure.update_yaxes(title="false positives + false negatives")
    title = f"Errors of the moves against the edited board, layers {literal(layers)} edited"
    laid_out(figure, title, height=380, legend=True)
    above = (
        "A disc is flipped in the board that the model represents: do its moves follow? Dashed is "
        "no edit, dotted the best that can be hoped for. A surprise would be random directions "
        "below the dashed line."
    )
    edited = means["errors"][means.index.get_level_values("scale") != 0]
    best = edited.groupby(level="reader", sort=False).min().dropna().sort_values()
    named = "; ".join(f"{printable(str(name))} {value:.2f}" for name, value in best.items())
    found = f"Errors without an edit {unedited['errors']:.2f}"
    return said(figure, above, f"{found}; at the best length: {named}." if named else f"{found}.")


def of_run(run: Run) -> Figures:
    """The figures of a run of this analysis, by name."""
    if run.study == "othello.compare":
        return {"layers": lambda: othello_layers(table(run.table("scores")))}
    if run.study == "othello.edit":
        layers = str(run.manifest["layers"])
        return {"edits": lambda: edit_errors(run.table("errors/table"), layers)}
    return {}
