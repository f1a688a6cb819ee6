"""Where the nodes of a picture stand: positions of the prompt along x, layers along y.

A position is as many slots wide, and a layer as many rows high, as its fullest cell needs, so no
node hides another. In a layer the heads stand below the rest, as they come first. What is of no
position, such as the remainder, is to the left of the prompt.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pandas as pd

WIDEST = 10
"""Slots of a position; more nodes of a layer stand above each other."""
EMPTY, GAP = 0.35, 0.45
"""Rows: height of a layer that has no node, and the space between two."""


@dataclass(frozen=True)
class Places:
    """A layout; x is in slots and y in rows."""

    at: dict[int, tuple[float, float]]
    """Each node's x and y."""
    columns: list[tuple[float, float]]
    """From where to where each position of the prompt goes."""
    rows: list[tuple[str, float]]
    """Name and middle of each layer: emb, 0, 1, … and target."""
    width: float
    height: float


def placed(nodes: pd.DataFrame, positions: int, layers: int) -> Places:
    """The layout of some nodes.

    Args:
        positions: of the prompt.
        layers: of the model.
    """
    cells: dict[tuple[float, int], list[int]] = {}
    order = nodes["attribution"].abs().sort_values(ascending=False, kind="stable").index
    for row in nodes.loc[order, ["node", "kind", "layer", "position"]].to_dict("records"):
        kind, layer = row["kind"], int(row["layer"])
        column = -1 if kind == "remainder" else min(max(int(row["position"]), -1), positions - 1)
        first = kind in ("head", "attention") or not 0 <= layer < layers
        half = 0.0 if first else 0.5
        cells.setdefault((min(layer, layers) + half, column), []).append(int(row["node"]))
    fullest: Counter[int] = Counter()
    for (_, column), members in cells.items():
        fullest[column] = max(fullest[column], min(len(members), WIDEST))
    starts, x = {}, 0.0
    for column in range(-1, positions):
        starts[column] = x
        x += max(1, fullest[column]) + 0.6
    at: dict[int, tuple[float, float]] = {}
    rows: list[tuple[str, float]] = []
    y = 0.0
    for layer in range(-1, layers + 1):
        below = y
        for half in (0.0, 0.5):
            here = {c: members for (r, c), members in cells.items() if r == layer + half}
            for column, members in here.items():
                most = fullest[column]
                for i, node in enumerate(members):
                    in_row = min(most, len(members) - i // most * most)
                    middle = starts[column] + (most - in_row) / 2
                    at[node] = (middle + i % most + 0.5, y + i // most)
            y += max((-(-len(m) // fullest[c]) for c, m in here.items()), default=0)
        y += EMPTY if y == below else 0.0
        name = {-1: "emb", layers: "target"}.get(layer, str(layer))
        rows.append((name, (below + y - 1) / 2))
        y += GAP
    columns = [(starts[c], starts[c] + max(1, fullest[c])) for c in range(positions)]
    return Places(at, columns, rows, x, y)
