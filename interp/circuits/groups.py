"""Nodes of a graph merged under a name, and the study `circuits.group` that keeps such a graph.

Attributions of the members add up, edges between two groups add up, edges inside a group vanish.
So for a group G, as for every node before,

    attribution(G) = sum of the edges into G from outside + what flows inside G
                     + what begins in G (embeddings and constants, into which nothing flows)

and `inside` is what flows inside along kept edges. What flows between members along edges that the
trace left out comes from the remainder, outside. A group of nodes that follow on each other counts
what passes from one to the next at each of them. A group stands where its strongest member does,
whose tokens it shows.

Tables: those of circuits.trace (totals and cuts as they were). In nodes.parquet a merged node has
the kind `group`, no activation, and as its name the group's; two columns more,
inside double (the kept edges inside a group, 0 of a node that is none)
members list<string> (the names of the nodes in it; empty of a node that is none)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from ..errors import UserError
from ..runs.store import Run, Store
from ..runs.writer import RunWriter
from .picked import ALWAYS, TRACE, Graph, named, opened, words

FLOWS = ("weight", "effect")
"""Columns of an edge."""
TABLES = ("tokens", "totals", "cuts")
"""What a grouping leaves as it is."""


def grouped(
    nodes: pd.DataFrame, edges: pd.DataFrame, groups: Mapping[str, Sequence[int]]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Nodes and edges with groups merged; nodes get new numbers, in the order they had.

    Args:
        nodes, edges: as trace.py describes them, or as this gives them.
        groups: name -> numbers of the nodes in it. None is in two.
    """
    rows = named(nodes)
    if "inside" not in rows:
        nobody: list[Any] = [[] for _ in rows.index]
        rows = rows.assign(inside=0.0, members=nobody)
    home = {member: members[0] for members in groups.values() for member in members}
    ends = _renumbered(edges, home)
    within = ends["source"] == ends["target"]
    inside = ends[within].groupby("source")["weight"].sum()
    merged = [_merged(name, rows.loc[list(g)], inside) for name, g in groups.items()]
    rest = rows.drop(index=[member for members in groups.values() for member in members])
    kept = pd.DataFrame([*rest.to_dict("records"), *merged], columns=rows.columns)
    kept = kept.sort_values("node", kind="stable").reset_index(drop=True)
    numbers = {old: new for new, old in enumerate(kept["node"])}
    kept["node"] = range(len(kept))
    summed = ends[~within].groupby(["source", "target"])[list(FLOWS)].sum(min_count=1)
    between = summed.reset_index()
    return kept.drop(columns="label"), _renumbered(between, numbers)


def _renumbered(edges: pd.DataFrame, numbers: Mapping[int, int]) -> pd.DataFrame:
    """Edges whose ends have other numbers, where there are any."""
    new = {end: [numbers.get(n, n) for n in edges[end]] for end in ("source", "target")}
    return edges.assign(**new)


def _merged(name: str, members: pd.DataFrame, inside: pd.Series) -> dict[Any, Any]:
    """A group's row, with the number that its edges have: that of its first member."""
    first = members.index[0]
    strongest = members.iloc[int(members["attribution"].abs().to_numpy().argmax())]
    row = {str(name): value for name, value in strongest.items()}
    said = [list(m["members"]) or [m["label"]] for m in members.to_dict("records")]
    return {
        **row,
        "node": first,
        "kind": "group",
        "name": name,
        "index": -1,
        "activation": np.nan,
        "attribution": float(members["attribution"].sum()),
        "effect": float(members["effect"].sum(skipna=False)),
        "top": words(row, "top"),
        "bottom": words(row, "bottom"),
        "inside": float(members["inside"].sum() + inside.get(first, 0.0)),
        "members": [each for some in said for each in some],
    }


def parsed(graph: Graph, groups: Sequence[str]) -> dict[str, list[int]]:
    """Groups that are written as NAME=NODE,NODE, by the numbers of their nodes.

    Raises:
        UserError: one is written otherwise, names no node, or has a name that is taken; a node is
            in two of them, or is the target or the remainder.
    """
    made: dict[str, list[int]] = {}
    taken: dict[int, str] = {}
    for text in groups:
        name, sign, list_of_nodes = text.partition("=")
        name, names = name.strip(), [each.strip() for each in list_of_nodes.split(",")]
        if not name or not sign or "," in name or not all(names):
            raise UserError(f"'{text}' is no group: write NAME=NODE,NODE")
        if name in made or name in set(graph.nodes["label"]):
            raise UserError(f"the name '{name}' is taken: give the group another")
        made[name] = [graph.number(each) for each in names]
        for node, each in zip(made[name], names, strict=True):
            if node in taken:
                raise UserError(f"{each} is in '{taken[node]}' and again in '{name}': give it once")
            if graph.nodes["kind"][node] in ALWAYS:
                raise UserError(f"the {each} is no part of a circuit: leave it out of '{name}'")
            taken[node] = name
    return made


@dataclass(frozen=True)
class GroupConfig:
    """Merge nodes of a traced circuit under names of your own."""

    STUDY: ClassVar[str] = "circuits.group"
    VERSION: ClassVar[int] = 1
    FACTS: ClassVar[dict[str, Any]] = {"traced": dict[str, Any]}

    groups: tuple[str, ...] = field(metadata={"positional": True})
    """Each as NAME=NODE,NODE, such as plural=12.down.345@4,5.head.3@6:2."""
    circuit: str = field(default="", kw_only=True, metadata={"key": False})
    """The graph: a folder or key of a run of circuits.trace or circuits.group; by default the
    newest traced one. Its key is part of this run's."""

    def __post_init__(self) -> None:
        if isinstance(self.groups, str) or not self.groups:
            raise UserError("give at least one group, as NAME=NODE,NODE")

    @cached_property
    def source(self) -> Run:
        """The run whose nodes are merged."""
        store = Store()
        if self.circuit:
            return store.find(self.circuit)
        return store.newest(TRACE, f"no traced circuit in {store.root}: `interp circuits trace`")

    def fingerprints(self) -> dict[str, str]:
        model = {k: v for k, v in self.source.manifest["fingerprints"].items() if k == "model"}
        return {"circuit": str(self.source.manifest["key"]), **model}

    def check(self) -> None:
        """Raise UserError for groups that the graph cannot have."""
        parsed(opened(self.source), self.groups)

    def run(self, out: RunWriter) -> dict[str, Any]:
        graph = opened(self.source)
        out.facts["traced"] = dict(graph.about)
        plain = graph.nodes.drop(columns="label").reset_index(drop=True)
        nodes, edges = grouped(plain, graph.edges, parsed(graph, self.groups))
        out.table("nodes", nodes)
        out.table("edges", edges)
        for name in TABLES:
            out.table(name, self.source.table(name))
        return {
            **self.source.metrics,
            "nodes": len(nodes),
            "edges": len(edges),
            "groups": int((nodes["kind"] == "group").sum()),
            "flows inside": float(nodes["inside"].sum()),
        }
