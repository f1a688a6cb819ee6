"""A traced circuit made by hand, in the format of circuits.trace: flows along known paths.

Each path is a chain of nodes from a source to the target with a weight; an edge weighs what the
paths over it do, and a node's attribution is what the paths through it do. So edges in, edges out
and attribution are equal, and the target is the sum over the paths.
"""

from collections import defaultdict
from itertools import pairwise

import numpy as np
import pandas as pd

from interp.runs.parts import write_table

from ..manifests import finish_by_hand

TOKENS = ["The", " keys", " to", " the", " cabinet"]
OTHER = ["The", " key", " to", " the", " cabinet"]
EVIL = [
    "</script><script>alert(1)</script>", '<a href="http://evil.example">x</a>', "$x^2$\u202e",
    "![p](http://evil.example/b.png) **b** `c` :red[d]", '"\'&\n\u2028<!--',
]  # fmt: skip
LAYERS, REMAINDER, TARGET = 3, 0, 1
NODES = [
    ("remainder", -1, -1, -1, "remainder"),
    ("target", LAYERS, 4, -1, "' are' - ' is'"),
    ("embedding", -1, 1, -1, None),
    ("embedding", -1, 4, -1, None),
    ("neuron", 0, 1, 7, "0.down.7"),
    ("neuron", 0, 1, 9, "0.down.9"),
    ("head", 1, 4, 3, "1.head.3"),
    ("bias", 1, 4, -1, "1.mlp.down_proj"),
    ("neuron", 1, 4, 17, "1.down.17"),
    ("neuron", 2, 4, 5, "2.down.5"),
    ("latent", 2, 4, 12, "2.latent.12"),
    ("error", 2, 4, -1, "2.error"),
]
"""kind, layer, position, index, name; a node's number is its place in the list."""
PATHS = [
    ((2, 4, 6, 8, 9, 1), 2.0),
    ((2, 5, 6, 8, 1), -0.5),
    ((3, 8, 9, 1), 0.75),
    ((3, 1), 0.25),
    ((7, 8, 10, 1), 0.5),
    ((0, 9, 1), 0.125),
    ((0, 11, 1), -0.25),
    ((0, 1), 0.5),
]
CHANGES = (0.75, 0.0, 0.0, 2.0, 0.25, 0.0, -1.0, 0.0)
"""What of each path's weight changes to the counterfactual."""
VALUE = sum(weight for _, weight in PATHS)
ABOUT = {
    "model": "tiny", "prompt": "The keys to the cabinet", "target": " are", "against": " is",
    "observable": "", "counterfactual": "", "rule": "half", "lens": "raw", "share": 0.8,
    "nodes": 300,
}  # fmt: skip


def tables(tokens=TOKENS, words=(" are", " were"), explained="' are' - ' is'", effects=False):
    """The tables of the planted run."""
    edges, attribution = defaultdict(float), defaultdict(float)
    for path, weight in PATHS:
        for node in path:
            attribution[node] += weight
        for source, target in pairwise(path):
            edges[source, target] += weight
    attribution[REMAINDER] = edges[REMAINDER, TARGET]  # as the study has it: of the target alone
    rows = []
    for node, (kind, layer, position, index, name) in enumerate(NODES):
        reads = kind in ("neuron", "head", "latent", "embedding")
        rows.append(
            {
                "node": node, "kind": kind, "layer": layer, "position": position,
                "source": 1 if kind == "head" else position, "index": index,
                "name": explained if kind == "target" else name or tokens[position],
                "token": tokens[position] if position >= 0 else "",
                "activation": 1.5 if kind in ("neuron", "head", "latent") else np.nan,
                "attribution": attribution[node], "effect": np.nan,
                "top": list(words) if reads else [], "bottom": [" is"] if reads else [],
            }
        )  # fmt: skip
    nodes = pd.DataFrame(rows)
    flows = pd.DataFrame([{"source": s, "target": t, "weight": w} for (s, t), w in edges.items()])
    flows["effect"] = np.nan
    if effects:
        _with_effects(nodes, flows)
    totals = nodes[~nodes["kind"].isin(["target", "remainder"])].groupby(["kind", "layer"])
    totals = totals["attribution"].agg(
        nodes="count", attribution="sum", absolute=lambda x: x.abs().sum()
    )
    return {
        "nodes": nodes,
        "edges": flows,
        "tokens": pd.DataFrame(
            {
                "position": range(len(tokens)), "token": tokens,
                "counterfactual": OTHER if effects else [""] * len(tokens),
            }
        ),
        "totals": totals.reset_index(),
        "cuts": pd.DataFrame(
            {"layer": range(LAYERS), "sum": VALUE, "error": [1e-7, -2e-7, 3e-8]}
        ),
    }  # fmt: skip


def _with_effects(nodes, edges):
    """What changes along each path: of nodes and edges the sums over the paths through them."""
    at, on = defaultdict(float), defaultdict(float)
    for (path, weight), change in zip(PATHS, CHANGES, strict=True):
        for node in path:
            at[node] += weight * change
        for ends in pairwise(path):
            on[ends] += weight * change
    whole = nodes["kind"].isin(["target", "remainder"])
    nodes["effect"] = nodes["node"].map(at).where(~whole)
    edges["effect"] = [on[ends] for ends in zip(edges["source"], edges["target"], strict=True)]


def write_run(store, tokens=TOKENS, words=(" are", " were"), config=None, effects=False, **facts):
    """The folder of a finished run of the planted circuit."""
    about = (
        ABOUT | ({"counterfactual": "The key to the cabinet"} if effects else {}) | (config or {})
    )
    explained = f"'{about['target']}' - '{about['against']}'"
    made = {
        f"{name}.parquet": lambda path, table=table: write_table(table, path)
        for name, table in tables(tokens, words, explained, effects).items()
    }
    metrics = {"target": VALUE, "largest error of a cut": 2e-7, "nodes": 12, "share": 0.25}
    if effects:
        metrics["counterfactual"] = VALUE - sum(
            weight * change for (_, weight), change in zip(PATHS, CHANGES, strict=True)
        )
    metrics["edges"] = len(tables(tokens)["edges"])
    return finish_by_hand(store, "circuits.trace", about, made=made, metrics=metrics, **facts)
