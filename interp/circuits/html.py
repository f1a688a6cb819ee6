"""A graph as one file that stands alone: picture, sliders, hover, and a card of the node clicked.

The picture is drawn by a script of this package (viewer.py), not by plotly, whose script alone has
2.0 MB when it is packed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..model.vocabulary import visible
from ..plain_text import printable
from ..webpage import data, document, text
from .figures import EDGES, SHARE
from .picked import ALWAYS, NUMBERS, Graph, flowing, place, short, words
from .placed import placed
from .viewer import SCRIPT, STYLE

MOST = 20_000
"""Edges in a file; of more the weakest are left out, and the file says so."""


def page(graph: Graph, share: float = SHARE, edges: float = EDGES) -> str:
    """The document.

    Args:
        share: of the absolute attribution (with a counterfactual: effect), and
        edges: of that of the edges, that is shown at first.
    """
    title = f"{graph.target} = {graph.value:.4g}"
    about = graph.about
    said = [f"{about.get('model', '')}: {graph.said}"]
    said += [f"rule {about['rule']}"] if about.get("rule") else []
    said += [f"{len(graph.parts):,} nodes, {len(graph.edges):,} edges"]
    if len(graph.edges) > MOST:
        said.append(f"of the edges the {MOST:,} strongest are in this file")
    sliders = "".join(
        f'<label>{name} <input type="range" id="{name}" min="1" max="100" '
        f'value="{first * 100:.0f}"> <output>{first:.0%}</output></label>'
        for name, first in (("nodes", share), ("edges", edges))
    )
    body = (
        f'<h1>{text(title)}</h1><p class="about">{text("; ".join(said))}</p>'
        '<p class="about">Circles are neurons or latents, squares heads, diamonds embeddings, '
        "triangles biases, stars groups. Blue is for the target, orange against it; the area is "
        f"the {graph.by}’s size. The sliders say which share of the absolute {graph.by}, and of "
        "that of the edges between these nodes, is shown.</p>"
        f'<div class="sliders">{sliders}</div><p id="hidden"></p>'
        '<div class="sides"><div class="picture">'
        '<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="the graph"></svg></div>'
        '<div class="card"></div></div><div class="hover" hidden></div>'
        f'<script type="application/json" id="data">{data(_data(graph))}</script>'
    )
    return document(title, body, STYLE, [SCRIPT])


def _data(graph: Graph) -> dict[str, Any]:
    """What the script draws; nodes are numbered by their place in the list."""
    layers = int(graph.nodes["layer"].max())
    places = placed(graph.nodes, len(graph.tokens), layers)
    before = _before(graph)
    flows = flowing(graph.edges, graph.by)
    order = flows.abs().sort_values(ascending=False, kind="stable").index[:MOST]
    at = {node: i for i, node in enumerate(graph.nodes.index)}
    drawn = graph.edges.assign(flow=flows).loc[order, ["source", "target", "flow", "weight"]]
    many = slice(4 if graph.by == "effect" else 3)  # both numbers, where there are two
    columns = zip(graph.tokens, places.columns, strict=True)
    return {
        "by": graph.by,
        "width": places.width,
        "height": places.height,
        "rows": places.rows,
        "columns": [[_word(short(t)), *span, i] for i, (t, span) in enumerate(columns)],
        "nodes": [
            _node(graph, row, *places.at[node], before.get(node, -1.0))
            for node, row in zip(graph.nodes.index, graph.nodes.to_dict("records"), strict=True)
        ],
        "edges": [
            [at[source], at[target], _short(flow), _short(weight)][many]
            for source, target, flow, weight in drawn.itertuples(index=False)
        ],
    }


def _node(
    graph: Graph, row: Mapping[Any, Any], x: float, y: float, before: float
) -> dict[str, Any]:
    there = [name for name in NUMBERS if name in row and row[name] == row[name]]
    numbers = {name: _short(row[name]) for name in there}
    return {
        "name": printable(row["label"]),
        "kind": row["kind"],
        "token": _word(row["token"]),
        "x": x,
        "y": y,
        "before": before,
        "place": printable(place(row, graph.tokens)),
        "size": numbers.get(graph.by, row["attribution"]),  # the target has no effect
        "numbers": numbers,
        "top": [_word(token) for token in words(row, "top")],
        "bottom": [_word(token) for token in words(row, "bottom")],
        "members": [printable(str(name)) for name in row.get("members", [])],
    }


def _before(graph: Graph) -> dict[int, float]:
    """What share of the absolute attribution, or effect, stronger nodes have; -1 where it always
    shows."""
    sizes = graph.parts[graph.by].abs().sort_values(ascending=False, kind="stable")
    shares = (sizes.cumsum() - sizes) / (sizes.sum() or 1.0)
    always = graph.nodes.index[graph.nodes["kind"].isin(ALWAYS)]
    found = zip(shares.index.tolist(), shares.tolist(), strict=True)
    return dict(found) | dict.fromkeys(always.tolist(), -1.0)


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def _word(token: str) -> str:
    return printable(visible(token))
