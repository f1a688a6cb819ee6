"""A graph as the JSON that circuit-tracer's front end and Neuronpedia read.

Read from circuit-tracer 0.4.1 (github.com/decoderesearch/circuit-tracer, commit 4bb8c0e:
`frontend/graph_models.py`, `utils/create_graph_files.py`, `frontend/assets/attribution_graph/`)
and Neuronpedia's `graph-schema.json`, version 1.0.0 (github.com/hijohnnylin/neuronpedia, commit
b8efe84); `schema_version` 1, in which a node's `feature` pairs its layer and its number.

What the two formats do not share:
- The front end has features, errors, embeddings and logits. Neurons, heads and biases have their
  own `feature_type` here, which it shows with their label (`clerp`: name and tokens), and for which
  it fetches no examples from the network.
- Its target is one token with a probability. Here it may be a difference, and has none: `p=nan`.
- `influence`, by which its slider prunes, is the share that a node and all stronger ones have of
  the absolute effect of the kept nodes, without a counterfactual of their absolute attribution. The
  remainder and the target have none; `node_threshold` 1 shows every node at first, and that of
  `pruning_settings` is the share that the kept nodes have of all the model's. Links are
  attributions.
- Groups of a grouped run are nodes, as they are merged; they are no supernodes, which the front
  end adds up itself.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..plain_json import read_json
from ..plain_path import plain_path
from ..runs.parts import export_text
from .picked import Graph, words

KINDS = {"embedding": "embedding", "target": "logit", "error": "mlp reconstruction error"}
"""Our kinds that the front end has by another name."""
OTHER = 10_000_000
"""Numbers from here on are of nodes that have none of their own."""
INDEX = "graph-metadata.json"
"""What circuit-tracer's server lists its graphs in."""


def as_json(graph: Graph, slug: str) -> dict[str, Any]:
    """The graph as an object of the schema.

    Args:
        slug: its name, which is the file's too.
    """
    influence = _influence(graph)
    numbers = _numbers(graph)
    ids = {n: _id(graph, row, numbers[n]) for n, row in _rows(graph)}
    return {
        "metadata": _metadata(graph, slug),
        "qParams": {
            "pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": "",
        },
        "nodes": [_node(graph, row, ids[n], numbers[n], influence[n]) for n, row in _rows(graph)],
        "links": [
            {"source": ids[source], "target": ids[target], "weight": float(weight)}
            for source, target, weight in graph.edges[["source", "target", "weight"]].to_numpy()
        ],
    }  # fmt: skip


def _rows(graph: Graph) -> list[tuple[int, dict[Any, Any]]]:
    return list(zip(graph.nodes.index, graph.nodes.to_dict("records"), strict=True))


def _metadata(graph: Graph, slug: str) -> dict[str, Any]:
    about = graph.about
    rule = {"rule": about.get("rule", ""), "counterfactual": graph.other}
    return {
        "slug": slug,
        "scan": Path(str(about.get("model", ""))).name,
        "transcoder_list": [],
        "prompt_tokens": list(graph.tokens),
        "prompt": graph.prompt,
        "node_threshold": 1.0,
        "schema_version": 1,
        "info": {
            "description": f"{graph.target} = {graph.value:.6g}; weights are in its units",
            "generator": {"name": "interp-workbench", "version": version("interp-workbench")},
        },
        "generation_settings": rule,
        "pruning_settings": {"node_threshold": graph.share},
    }


def _node(
    graph: Graph, row: Mapping[Any, Any], name: str, number: int, influence: float | None
) -> dict[str, Any]:
    kind, layer = row["kind"], _layer(row)
    return {
        "node_id": name,
        "feature": number if kind == "embedding" else cantor(max(int(row["layer"]), 0), number),
        "layer": layer,
        "ctx_idx": _position(graph, row),
        # "error" in a type is how the front end knows what the graph does not explain
        "feature_type": KINDS.get(kind, "remainder error" if kind == "remainder" else kind),
        "token_prob": 0.0,
        "is_target_logit": kind == "target",
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "jsNodeId": name,
        "clerp": _said(graph, row),
        "influence": influence,
        "activation": None if math.isnan(row["activation"]) else float(row["activation"]),
    }


def _said(graph: Graph, row: Mapping[Any, Any]) -> str:
    """A node's label."""
    if row["kind"] == "target":  # the front end takes what stands in the quotes as the token
        return f'Output "{graph.target}" = {graph.value:.4g} (p=nan)'
    top, bottom = (" ".join(words(row, side, 5)) for side in ("top", "bottom"))
    sides = [f"writes {top}" if top else "", f"against {bottom}" if bottom else ""]
    return " · ".join(filter(None, [row["label"], *sides]))


def _layer(row: Mapping[Any, Any]) -> str:
    layer = int(row["layer"])
    if row["kind"] == "target":
        return str(layer + 1)
    return "E" if layer < 0 else str(layer)


def _position(graph: Graph, row: Mapping[Any, Any]) -> int:
    return min(max(int(row["position"]), 0), len(graph.tokens) - 1)


def _numbers(graph: Graph) -> dict[int, int]:
    """Each node's number within its layer: its own, where no other node has it there."""
    made, taken = {}, set()
    for node, row in _rows(graph):
        own = int(row["position"] if row["kind"] == "embedding" else row["index"])
        of_kind = row["kind"] in ("neuron", "latent", "embedding")
        place = (_layer(row), _position(graph, row), own)
        free = of_kind and own >= 0 and place not in taken
        made[node] = own if free else OTHER + node
        taken.add(place)
    return made


def _id(graph: Graph, row: Mapping[Any, Any], number: int) -> str:
    """`layer_number_position`, as the front end's own."""
    return f"{_layer(row)}_{number}_{_position(graph, row)}"


def _influence(graph: Graph) -> dict[int, float | None]:
    """Each kept node's share of the absolute effect, or attribution, together with all stronger
    ones; none of the target and the remainder."""
    parts = graph.parts[graph.by].abs()
    order = parts.sort_values(ascending=False, kind="stable")
    shares = (order.cumsum() / (order.sum() or 1.0)).clip(upper=1.0)
    return {int(node): shares.get(node) for node in graph.nodes.index}


def cantor(x: int, y: int) -> int:
    """The number of a pair, by which the front end tells layer and feature."""
    return (x + y) * (x + y + 1) // 2 + y


def write_json(graph: Graph, path: Path, index: bool = False) -> None:
    """Write a graph; with `index`, enter it in the list beside it.

    Raises:
        UserError: the file's name cannot be an address, or one of the files cannot be written.
    """
    path = plain_path(path)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", path.stem):
        raise UserError(f"name the file with letters, digits, - and _ alone, not '{path.stem}'")
    made = as_json(graph, path.stem)
    files = {path: made}
    if index:
        list_of = path.with_name(INDEX)
        listed = read_json(list_of).get("graphs", []) if list_of.exists() else []
        others = [each for each in listed if each.get("slug") != path.stem]
        files[list_of] = {"graphs": [*others, made["metadata"]]}
    for file, content in files.items():
        export_text(file, json.dumps(content, indent=1, allow_nan=False))
