"""Figures of linear interpreters: votes, biases, singular vectors, responses, and tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..model.vocabulary import visible
from ..plain_tensors import read_arrays
from ..plain_text import printable
from ..plots import (
    BLUE,
    DIVERGING,
    GREY,
    ORANGE,
    Figures,
    label,
    laid_out,
    literal,
    row_at_most,
    said,
)
from ..runs.store import Run


def vote_maps(votes: np.ndarray, picture: np.ndarray, titles: Sequence[str]) -> go.Figure:
    """The picture, and the votes [classes, c, h, w] of every class summed over the channels: blue
    for the class, orange against it. All maps end at the 99.5th percentile of their sizes."""
    maps, columns = votes.sum(1), 3
    top = float(np.quantile(np.abs(maps), 0.995)) or 1.0
    rows = -(-(len(maps) + 1) // columns)
    names = ["the picture", *map(literal, titles)]
    figure = make_subplots(rows, columns, subplot_titles=names, vertical_spacing=0.12 / rows)
    figure.add_trace(_image(picture), 1, 1)
    for n, values in enumerate(maps, 1):
        figure.add_heatmap(
            z=values, zmin=-top, zmax=top, colorscale=DIVERGING, showscale=n == len(maps),
            hovertemplate="%{y}, %{x}: %{z:.3g}<extra></extra>",
            row=n // columns + 1, col=n % columns + 1,
        )  # fmt: skip
    _square(figure, "Votes: row of A × picture, summed over colours", 90 + 290 * rows)
    above = (
        "What each pixel adds to a class's score (blue) or takes from it (orange). Sums over a map "
        "and the biases' r are the score, exactly. A surprise would be votes that lie off the "
        "object, or the same map for two unlike classes."
    )
    sizes = np.abs(maps).reshape(len(maps), -1)
    found = f"Half of the votes of the first class lie in {_half(sizes[0]):.1%} of the pixels."
    return said(figure, above, found if sizes[0].any() else "It has no votes for the first class.")


def _half(sizes: np.ndarray) -> float:
    """The share of the pixels that has half of the sum."""
    ordered = np.sort(sizes)[::-1].cumsum()
    return float((ordered < ordered[-1] / 2).sum() + 1) / len(sizes)


def layer_constants(layers: pd.DataFrame, title: str) -> go.Figure:
    """What each layer's constants add to r, from input to output (columns module, value)."""
    colours = [BLUE if value > 0 else ORANGE for value in layers["value"]]
    names = [literal(name) or "the network itself" for name in layers["module"]]
    places = list(range(len(layers)))
    figure = go.Figure(
        go.Bar(
            x=places, y=layers["value"], marker_color=colours, customdata=names,
            hovertemplate="%{customdata}: %{y:.3g}<extra></extra>",
        )
    )  # fmt: skip
    # dozens of paths cannot be read below each other: the largest are named, the rest on hover
    largest = layers["value"].abs().reset_index(drop=True).nlargest(NAMED).index
    ends = {0: "input side", len(layers) - 1: "output side"}
    told = sorted({*largest, *(at for at in ends if at >= 0)})
    figure.update_xaxes(
        tickvals=told, ticktext=[_end(names[at]) if at in largest else ends[at] for at in told],
        tickangle=-40, title="layers in the order in which they run; the largest are named",
        automargin=True,
    )  # fmt: skip
    figure.update_yaxes(title="adds to r")
    laid_out(figure, literal(title), 380)
    above = (
        "What the constants of each layer add to the score, whatever the picture. A surprise would "
        "be one layer that decides alone, or an early one that does."
    )
    if not (layers["value"].abs() > 0).any():
        none = layers["value"].notna().any()
        return said(figure, above, "No layer's constants add anything." if none else "")
    most = row_at_most(layers, layers["value"].abs())
    name = printable(str(most["module"])) or "the network itself"
    found = (
        f"The most is of {name}: {most['value']:+.3g}; all together add "
        f"{layers['value'].sum():+.3g}."
    )
    return said(figure, above, found)


NAMED = 6
"""Layers of a network that a figure names."""


def _end(name: str) -> str:
    """The last two parts of a module's path."""
    return ".".join(name.split(".")[-2:])


def bias_shares(pictures: pd.DataFrame) -> go.Figure:
    """|r| / (|r| + |sum of the votes|) of every picture's best class, counted from two zeros."""
    rows = pictures.sort_values("share")
    names = [literal(f"{p}: {c}") for p, c in zip(rows["picture"], rows["label"], strict=True)]
    figure = go.Figure()
    for column, name, colour in (
        ("share", "from the network's own zero", BLUE),
        ("black_share", "from a black picture", GREY),
    ):
        figure.add_scatter(x=rows[column], y=names, mode="markers", name=name, marker_color=colour)
    figure.update_xaxes(range=[0, 1.02], title="share of the biases")
    laid_out(figure, "The biases' share of the best class's score", 120 + 20 * len(rows))
    figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.08})
    above = (
        "How much of each picture's best score comes from the biases and not from its pixels: 1 is "
        "all. What counts as no input matters, so there are two zeros. A surprise would be a share "
        "near 0: the network would go by the pixels alone."
    )
    found = (
        f"Median {rows['share'].median():.0%} from the network's own zero, "
        f"{rows['black_share'].median():.0%} from black; from {rows['share'].min():.0%} to "
        f"{rows['share'].max():.0%} over {len(rows):,} pictures."
    )
    return said(figure, above, found if rows[["share", "black_share"]].notna().any().all() else "")


def singular_values(values: pd.DataFrame) -> go.Figure:
    """The singular values, and the share of the total energy up to each (right axis)."""
    figure = make_subplots(specs=[[{"secondary_y": True}]])
    figure.add_bar(x=values["rank"], y=values["value"], marker_color=BLUE, name="value")
    figure.add_scatter(
        x=values["rank"], y=values["energy"], secondary_y=True, line_color=ORANGE,
        name="energy up to this rank",
    )  # fmt: skip
    figure.update_yaxes(range=[0, 1], secondary_y=True, tickformat=".0%", showgrid=False)
    laid_out(figure, "Singular values", 300)
    figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.1})
    above = (
        "How strongly the network passes its best patterns for this picture. Many alike mean a "
        "filter; a steep fall means that a few patterns make the output. A surprise would be one "
        "value with most of the energy."
    )
    return said(figure, above, _ends(values.sort_values("rank")))


def _ends(values: pd.DataFrame) -> str:
    """The first and the last singular value, and the energy that they and those between have."""
    if values.empty:
        return ""
    first, last = values.iloc[0], values.iloc[-1]
    if len(values) == 1:
        return f"The first is {first['value']:.3g} and has {first['energy']:.1%} of the energy."
    return (
        f"The first is {first['value']:.3g}, the last {last['value']:.3g}; the {len(values):,} "
        f"together have {last['energy']:.1%} of the energy."
    )


def picture_strip(
    pictures: np.ndarray, titles: Sequence[str], title: str, columns: int = 8
) -> go.Figure:
    """Signed pictures [n, c, h, w], each on its own scale around mid-grey (0)."""
    rows = -(-len(pictures) // columns)
    figure = make_subplots(
        rows, columns, subplot_titles=list(map(literal, titles)), horizontal_spacing=0.01,
        vertical_spacing=0.12 / rows,
    )  # fmt: skip
    for n, picture in enumerate(pictures):
        scaled = 0.5 + picture / (2 * (np.abs(picture).max() or 1.0))
        figure.add_trace(_image(_rgb(scaled)), n // columns + 1, n % columns + 1)
    return _square(figure, title, 90 + 150 * rows)


def place_picker(picture: np.ndarray, places: pd.DataFrame, chosen: int) -> go.Figure:
    """A picture [h, w, 3] with the places of a run to click on (columns place, y, x)."""
    figure = px.imshow(picture, binary_string=True)
    colours = [ORANGE if place == chosen else BLUE for place in places["place"]]
    figure.add_scatter(
        x=places["x"], y=places["y"], mode="markers", customdata=places["place"],
        marker={"color": colours, "size": 12, "line": {"color": "white", "width": 1}},
        hovertemplate="%{y}, %{x}: displacement "
        "%{text}<extra></extra>", text=places["displacement"].round(2),
    )  # fmt: skip
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return laid_out(figure, "The output: click on a place", 380)


def token_contributions(tokens: pd.DataFrame) -> go.Figure:
    """Each logit (rows) split among the prompt's tokens (columns)."""
    grid = tokens.pivot(index="logit", columns="position", values="contribution")
    grid = grid.loc[list(dict.fromkeys(tokens["logit"]))]
    texts = tokens.drop_duplicates("position").sort_values("position")["token"]
    top = float(np.abs(grid.to_numpy()).max()) or 1.0
    figure = go.Figure(
        go.Heatmap(
            z=grid.to_numpy(), x=[f"{n} {label(t)}" for n, t in enumerate(texts)],
            y=[label(name) for name in grid.index], zmin=-top, zmax=top, colorscale=DIVERGING,
            text=grid.round(2).to_numpy(), texttemplate="%{text}",
            hovertemplate="%{y} from %{x}: %{z:.4g}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed")
    laid_out(figure, "What each token's activations add to a logit", 140 + 40 * len(grid))
    above = (
        "A row is a logit, split exactly among the tokens and the biases. Blue adds, orange takes. "
        "A surprise would be a token that matters to the sense and adds nothing."
    )
    if not (tokens["contribution"].abs() > 0).any():
        return said(figure, above)
    most = row_at_most(tokens, tokens["contribution"].abs())
    found = (
        f"The most is of {visible(str(most['token']))} (position {most['position']}) to "
        f"{visible(str(most['logit']))}: {most['contribution']:+.3g} logits."
    )
    return said(figure, above, found)


def _image(picture: np.ndarray) -> go.Image:
    image: go.Image = px.imshow(picture, binary_string=True).data[0]
    return image.update(hovertemplate="%{y}, %{x}<extra></extra>")


def _rgb(picture: np.ndarray) -> np.ndarray:
    """[1 or 3, h, w] in 0..1 -> 8 bits [h, w, 3]."""
    shown = np.repeat(picture, 3, 0) if len(picture) == 1 else picture[:3]
    return (255 * shown.transpose(1, 2, 0).clip(0, 1)).astype(np.uint8)


def _square(figure: go.Figure, title: str, height: int) -> go.Figure:
    figure.update_xaxes(visible=False, constrain="domain")
    figure.update_yaxes(visible=False, constrain="domain", autorange="reversed")
    figure.for_each_yaxis(lambda axis: axis.update(scaleanchor=axis.anchor))
    figure.update_annotations(font_size=11)
    return laid_out(figure, title, height)


def of_run(run: Run) -> Figures:
    """The figures of a run of this analysis, by name."""
    if run.study == "linearscope.explain":
        return {"votes": lambda: _votes(run)}
    if run.study == "linearscope.bias":
        return {"shares": lambda: bias_shares(run.table("pictures"))}
    if run.study == "linearscope.svd":
        return {"values": lambda: singular_values(run.table("values"))}
    if run.study == "linearscope.tokens":
        return {"tokens": lambda: token_contributions(run.table("tokens"))}
    return {}


def _votes(run: Run) -> go.Figure:
    maps, classes = read_arrays(run.part("maps.safetensors")), run.table("classes")
    named = zip(classes["label"], classes["probability"], strict=True)
    titles = [f"{name} {chance:.0%}" for name, chance in named]
    return vote_maps(maps["votes"], maps["picture"], titles)
