"""What the figures share: colours, layout, and tokens made readable."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from .errors import UserError
from .model.vocabulary import visible
from .plain_path import plain_path
from .plain_text import printable

if TYPE_CHECKING:
    import pandas as pd

Figures = dict[str, Callable[[], go.Figure]]
"""Figures by their names, each made when it is called for."""
FORMATS = ("svg", "pdf", "png")
WIDTH = 820
"""Width of a saved figure in pixels of the screen."""
BLUE, ORANGE, GREY = "#3b6fb6", "#d9822b", "#8a8f98"
GROUND, DEEP, WARM = "#ffffff", "#1c4a86", "#8a4a0c"
"""Ends of the colour scales; on a dark page they are those of `DARK`."""
DIVERGING = [[0, ORANGE], [0.5, GROUND], [1, BLUE]]
SEQUENTIAL = [[0, GROUND], [0.5, "#7ba6d8"], [1, DEEP]]
WARMING = [[0, GROUND], [0.5, "#e0a25c"], [1, WARM]]
DARK = {GROUND: "#12161d", DEEP: "#b9d6f8", WARM: "#fadfb8", "#1f3a5f": "#cfe0f7"}
"""The same colours for a dark page: nothing there is as light as a heat map's ground."""


def literal(text: object) -> str:
    """A name that a run or a file gives, for plotly, which reads tags (links too), entities and
    formulas in titles, labels and categories."""
    return printable(str(text)).replace("&", "&amp;").replace("<", "&lt;").replace("$", "&#36;")


def label(token: str) -> str:
    """A visible token for plotly."""
    return literal(visible(token))


def laid_out(figure: go.Figure, title: str, height: int, legend: bool = False) -> go.Figure:
    return figure.update_layout(
        title={"text": title, "font": {"size": 15}},
        height=height,
        showlegend=legend,
        template="plotly_white",
        margin={"l": 10, "r": 10, "t": 60, "b": 10},
    )


def said(figure: go.Figure, shows: str, found: str = "") -> go.Figure:
    """The figure with its sentences: the one above it says what it shows and what would be a
    surprise, the one below what was found. They are plain text, which plotly does not read."""
    return figure.update_layout(meta={"shows": shows, "found": found})


def sentences(figure: go.Figure) -> tuple[str, str]:
    """The sentences of a figure, above and below; "" where it has none."""
    meta = figure.layout.meta
    held = meta if isinstance(meta, dict) else {}
    return str(held.get("shows", "")), str(held.get("found", ""))


def row_at_most(rows: pd.DataFrame, values: pd.Series) -> pd.Series:
    """The row with the largest of some values, one a row; NaN is none.

    Raises:
        ValueError: there is no row.
    """
    return rows.iloc[int(values.astype(float).fillna(float("-inf")).to_numpy().argmax())]


def many_panels(figure: go.Figure) -> bool:
    """Whether a figure has panels beside each other, which on a telephone would be thumbnails: it
    keeps its width there, and scrolls."""
    starts = {axis.domain[0] for axis in figure.select_xaxes() if axis.domain}
    return len(starts) > 2


def interval_bars(rows: pd.DataFrame, value: str, **style: Any) -> dict[str, Any]:
    """Error bars of a column with its interval beside it, `<value>_low` and `<value>_high`.

    Args:
        style: more for plotly, such as `thickness`.
    """
    above, below = rows[f"{value}_high"] - rows[value], rows[value] - rows[f"{value}_low"]
    return {"array": above, "arrayminus": below, **style}


def on_dark(figure: go.Figure) -> go.Figure:
    """A copy whose colours are for a dark page."""
    made = go.Figure(figure)
    for part in [*made.data, made.layout.coloraxis]:
        for held in [part, *(part[name] for name in ("marker", "line") if name in part)]:
            if "colorscale" in held and held.colorscale:
                held.colorscale = [[at, DARK.get(colour, colour)] for at, colour in held.colorscale]
            if "color" in held and isinstance(held.color, str):
                held.color = DARK.get(held.color, held.color)
    return made


def save_figure(figure: go.Figure, path: str | Path, width: int = WIDTH) -> Path:
    """Write a figure as a .svg, .pdf or .png file (PNG at twice the screen's resolution).

    Raises:
        UserError: another ending, no folder there, or nothing that can draw.
    """
    path = plain_path(path)
    if not path.parent.is_dir():
        raise UserError(f"cannot write {path}: there is no folder {path.parent}")
    image = drawn(figure, path.suffix.removeprefix("."), width)
    try:
        path.write_bytes(image)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    return path


def drawn(figure: go.Figure, kind: str, width: int = WIDTH) -> bytes:
    """A figure as an SVG, PDF or PNG file's content. Kaleido draws it, in a Chrome or Chromium.

    Raises:
        UserError: as `save_figure`.
    """
    if kind not in FORMATS:
        raise UserError(f"a figure is saved as {', '.join(FORMATS)}, not as '{kind}'")
    if not 100 <= width <= 10_000:
        raise UserError(f"a figure is 100 to 10,000 pixels wide, not {width}")
    if reason := undrawable():
        raise UserError(reason)
    image: bytes = figure.to_image(kind, width=width, scale=2 if kind == "png" else 1)
    return image


def undrawable() -> str:
    """Why no figure can be drawn here, with the fix; "" if one can."""
    if not find_spec("kaleido"):
        return "figures are saved by kaleido: pip install 'interp-workbench[figures]'"
    from choreographer.browsers.chromium import Chromium

    browser = Chromium.find_browser(skip_local=False)
    if not browser or not Path(browser).is_file():
        return (
            "figures are drawn in a Chrome or Chromium, and none is found: install one, name it in "
            "$BROWSER_PATH, or run plotly_get_chrome"
        )
    return ""


def whole_ticks(figure: go.Figure, axis: str, numbers: Iterable[Any], most: int = 40) -> None:
    """Ticks of an axis of layers or heads: at numbers that are there, every one unless they are
    more than `most`."""
    there = sorted(set(numbers))
    update = figure.update_xaxes if axis == "x" else figure.update_yaxes
    update(tickvals=there[:: -(-len(there) // most)])


def heat_map(
    grid: pd.DataFrame, low: float, high: float, hover: str, colours: Any = SEQUENTIAL, **trace: Any
) -> go.Figure:
    """A table of numbers as a heat map, its columns along x and its rows along y."""
    scale = {"zmin": low, "zmax": high, "colorscale": colours}
    shown = go.Heatmap(x=grid.columns, y=grid.index, z=grid.to_numpy(), **scale, **trace)
    return go.Figure(shown.update(hovertemplate=f"{hover}<extra></extra>"))
