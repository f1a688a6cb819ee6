"""A stored graph as it is shown: its nodes' names, the strongest of them, and one node's card.

A name says which node it is: `12.down.345@4` (neuron 345 of layer 12 at position 4),
`5.head.3@6:2` (head 3 at position 6, reading from 2), `embedding@0`, of constants and of whole
modules the module's name, `12.mlp@4` (without a position where they have none), `remainder`,
`target`; a group has the name that its maker gave it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from ..errors import UserError
from ..model.vocabulary import visible
from ..runs.store import Run

TRACE, GROUP = "circuits.trace", "circuits.group"
KINDS = (
    "neuron", "head", "latent", "mlp", "attention", "embedding", "bias", "error", "group",
    "remainder", "target",
)  # fmt: skip
NUMBERS = ("attribution", "activation", "effect", "inside")
"""Columns of a node that its card shows, where there is a number."""
COLUMNS = (
    "node", "kind", "layer", "position", "source", "index", "name", "token", "activation",
    "attribution", "effect", "top", "bottom",
)  # fmt: skip
MOST = 10_000
"""Layers of a model; more are a fault of the file."""
By = Literal["attribution", "effect"]
"""What ranks the nodes; effects are there with a counterfactual."""
ALWAYS = ("remainder", "target")
"""Kinds of which there is one node, which is always shown."""


@dataclass(frozen=True)
class Graph:
    """A graph of a prompt."""

    nodes: pd.DataFrame
    """As trace.py describes them, and `label`: the node's name. The index is the node's number."""
    edges: pd.DataFrame
    tokens: tuple[str, ...]
    about: Mapping[str, Any]
    """The config of the trace."""
    value: float
    """The target's."""
    model_print: str = ""
    """The model's fingerprint."""
    others: tuple[str, ...] = ()
    """Tokens of the counterfactual prompt; none without one."""
    counterfactual: float | None = None
    """The target's value there."""
    share: float | None = None
    """Of the absolute score of all the model's nodes, what those that are kept have."""

    @property
    def target(self) -> str:
        """What is explained, as `target.Target.name` has it."""
        return ", ".join(self.nodes.loc[self.nodes["kind"] == "target", "name"]).strip()

    @property
    def has_effects(self) -> bool:
        """Whether there is a counterfactual."""
        return bool(self.parts["effect"].notna().any())

    @property
    def by(self) -> By:
        """What the nodes and edges were chosen by, and are shown by."""
        return "effect" if self.has_effects else "attribution"

    @property
    def prompt(self) -> str:
        """The text; where an observable brought it, its tokens one after the other."""
        return str(self.about.get("prompt", "") or "".join(self.tokens))

    @property
    def other(self) -> str:
        """The counterfactual's text; "" without one."""
        return str(self.about.get("counterfactual", "") or "".join(self.others))

    @property
    def said(self) -> str:
        """The prompts and the target's values, as a caption has them."""
        said = f"“{self.prompt}”; {self.target} = {self.value:.4g}"
        if self.counterfactual is None:
            return said
        return f"{said}, and {self.counterfactual:.4g} at the counterfactual “{self.other}”"

    @property
    def parts(self) -> pd.DataFrame:
        """The nodes but the target and the remainder."""
        return self.nodes[~self.nodes["kind"].isin(ALWAYS)]

    def number(self, name: str) -> int:
        """The node of a name.

        Raises:
            UserError: there is none.
        """
        found = self.nodes.index[self.nodes["label"] == name]
        if len(found) != 1:
            near = [label for label in self.nodes["label"] if label.startswith(name.split("@")[0])]
            hint = ", ".join(near[:4] or list(self.parts["label"][:4]))
            raise UserError(f"no node '{name}' in this graph: its names are like {hint}")
        return int(found[0])


def opened(run: Run) -> Graph:
    """The graph of a run of circuits.trace or circuits.group.

    Raises:
        UserError: another study's run, or one whose tables do not belong together.
    """
    if run.study not in (TRACE, GROUP):
        raise UserError(f"{run.path} holds a run of {run.study}: a graph is one of {TRACE}")
    about = run.config if run.study == TRACE else run.manifest["traced"]
    said = run.table("tokens").sort_values("position")
    tokens, others = (tuple(said.get(name, ())) for name in ("token", "counterfactual"))
    nodes, edges = run.table("nodes"), run.table("edges")
    if fault := _fault(nodes, edges, len(tokens)):
        raise UserError(f"{run.path} {fault}: make it again with --fresh")
    fingerprints = run.manifest.get("fingerprints", {})
    value = float(run.metrics["target"])
    other, share = (run.metrics.get(name) for name in ("counterfactual", "share"))
    return Graph(
        named(nodes), edges, tokens, about, value, str(fingerprints.get("model", "")),
        others, counterfactual=other, share=share,
    )  # fmt: skip


def _fault(nodes: pd.DataFrame, edges: pd.DataFrame, length: int) -> str:
    """What is wrong with tables that anyone may have written; "" if nothing is."""
    missing = {*COLUMNS} - {*nodes} | {"source", "target", "weight"} - {*edges}
    if missing:
        return f"lacks the columns {', '.join(sorted(missing))}"
    numbers = set(nodes["node"])
    if len(numbers) < len(nodes) or not numbers >= {*edges["source"], *edges["target"]}:
        return "has edges of nodes that it lacks"
    if (nodes["kind"] == "target").sum() != 1 or not length:
        return "has no target, or several, or no tokens"
    if not nodes["layer"].between(-1, MOST).all() or not (nodes["position"] < length).all():
        return "has nodes outside of its model or its prompt"
    if not np.isfinite([*nodes["attribution"], *edges["weight"]]).all():
        return "has numbers that are not finite"
    return ""


def named(nodes: pd.DataFrame) -> pd.DataFrame:
    """Nodes by their numbers, each with a `label` of its own."""
    made = nodes.set_index("node", drop=False).rename_axis(None)
    labels = [_label(row) for row in made.to_dict("records")]
    often = pd.Series(labels, dtype=object).duplicated(keep=False)
    unique = [
        f"{label}#{number}" if twice else label
        for label, number, twice in zip(labels, made.index, often, strict=True)
    ]
    return made.assign(label=unique)


def _label(row: Mapping[Any, Any]) -> str:
    kind, at = row["kind"], row["position"]
    if kind in ALWAYS:
        return str(kind)
    if kind == "group":
        return str(row["name"])
    name = str("embedding" if kind == "embedding" else row["name"])
    if at < 0:
        return name
    return f"{name}@{at}:{row['source']}" if kind == "head" else f"{name}@{at}"


class Picked(NamedTuple):
    """What of a graph is shown, the strongest first, and what is not."""

    nodes: pd.DataFrame
    edges: pd.DataFrame
    hidden: int
    """Parts that are not shown."""
    hidden_sum: float
    """Their attributions, or effects, added up."""
    hidden_edges: int
    """Edges between shown nodes that are not shown."""

    @property
    def sentence(self) -> str:
        """What is hidden, said."""
        if not self.hidden and not self.hidden_edges:
            return "all nodes and edges of the run"
        return (
            f"not shown: {self.hidden:,} weaker nodes ({self.hidden_sum:+.3g} together) and "
            f"{self.hidden_edges:,} weaker edges"
        )


def picked(graph: Graph, share: float = 1.0, edges: float = 0.5, by: By = "attribution") -> Picked:
    """The strongest nodes and edges of a graph. The target and the remainder are always there. What
    flows in from the remainder is an edge of every node, and none of these is drawn.

    Args:
        share: of the parts' absolute attribution (or effect), that those which are shown carry at
            least.
        edges: the same of the absolute weight (or effect) of the edges between them. Unless it is
            0, the strongest edge out of each node is shown too: its way to the target.

    Returns:
        Its edges' `weight` is what they were picked by.

    Raises:
        UserError: a share outside of 0 to 1.
    """
    for name, number in (("nodes", share), ("edges", edges)):
        if not 0 <= number <= 1:
            raise UserError(f"the share of {name} to show is between 0 and 1, not {number:g}")
    parts = graph.parts
    strong = strongest(parts[by].fillna(0.0), share)
    rest = graph.nodes[graph.nodes["kind"].isin(ALWAYS)]
    shown = pd.concat([rest, parts.loc[strong]])
    drawn = between(graph, shown)
    drawn = drawn.assign(weight=flowing(drawn, by))
    sizes = drawn["weight"].abs()
    ways = list(sizes.groupby(drawn["source"]).idxmax()) if edges else []
    kept = drawn.loc[sizes[[*strongest(sizes, edges), *ways]].index.unique()]
    left = parts.drop(index=strong)
    return Picked(shown, kept, len(left), float(left[by].sum()), len(drawn) - len(kept))


def flowing(edges: pd.DataFrame, by: By) -> pd.Series:
    """What flows along edges: of what there is, or of what changes to the counterfactual."""
    column = "effect" if by == "effect" and "effect" in edges else "weight"
    return edges[column].fillna(0.0)


def between(graph: Graph, nodes: pd.DataFrame) -> pd.DataFrame:
    """The edges between some nodes, without those from the remainder."""
    drawn = nodes.index[nodes["kind"] != "remainder"]
    ends = graph.edges["source"].isin(drawn) & graph.edges["target"].isin(drawn)
    return graph.edges[ends]


def strongest(values: pd.Series, share: float) -> pd.Index:
    """The index of the largest values by size, as few as carry a share of their absolute sum."""
    sizes = values.abs().sort_values(ascending=False, kind="stable")
    if share >= 1:
        return sizes.index
    total = sizes.sum()
    before = sizes.cumsum() - sizes  # what those ahead of it carry
    return sizes.index[np.asarray(before < share * total)]


@dataclass(frozen=True)
class NodeCard:
    """One node: its numbers, its tokens, and its edges, the strongest first."""

    node: Mapping[str, Any]
    """Its row."""
    incoming: pd.DataFrame
    """name, weight, with a counterfactual effect too: what flows in, the remainder's as well."""
    outgoing: pd.DataFrame


def card(graph: Graph, node: int, by: By = "attribution") -> NodeCard:
    """What a graph says of one node; its edges in the order of what is asked for."""
    row = {str(name): value for name, value in graph.nodes.loc[node].items()}
    incoming = _ends(graph, "target", "source", node, by)
    return NodeCard(row, incoming, _ends(graph, "source", "target", node, by))


def _ends(graph: Graph, this: str, other: str, node: int, by: By) -> pd.DataFrame:
    """The other ends of a node's edges."""
    rows = graph.edges[graph.edges[this] == node]
    order = flowing(rows, by).abs().sort_values(ascending=False, kind="stable").index
    rows = rows.loc[order]
    names = graph.nodes["label"].reindex(rows[other]).to_numpy()
    both = ["effect", "weight"] if graph.has_effects and "effect" in rows else ["weight"]
    return pd.DataFrame({"name": names, **{name: rows[name].to_numpy() for name in both}})


def place(row: Mapping[Any, Any], tokens: Sequence[str]) -> str:
    """What a node is and where: of a head both tokens, as it carries from one to the other."""
    kind, at, source = str(row["kind"]), int(row["position"]), int(row["source"])
    if at < 0:
        return kind
    said = f"{kind} at position {at}, {visible(row['token'])}"
    reads = f", reading from position {source}, {visible(tokens[source])}"
    return said + reads if kind == "head" and 0 <= source < len(tokens) else said


def words(row: Mapping[Any, Any], side: str, most: int = 10) -> list[str]:
    """A node's top or bottom tokens; none where it writes none."""
    found = row[side]
    return [] if found is None else [str(token) for token in list(found)[:most]]


def short(token: str, most: int = 14) -> str:
    """A token as an axis has room for."""
    return token if len(token) <= most else f"{token[: most - 1]}…"
