"""The part of a network that is worth looking at: its largest nodes, the edges between them, and a
remainder for all else, so that what flows into a node still adds up to what it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .network import AT_ONCE, Network, Node

NAN = float("nan")


class Edge(NamedTuple):
    """What flows from a node to another, in the target's units; numbers in `Graph.nodes`."""

    source: int
    target: int
    weight: float
    effect: float
    """The same of what changes from the counterfactual; NaN without one."""


class Graph(NamedTuple):
    """Nodes and edges. Beyond the nodes stand two numbers: `target` and `remainder`."""

    nodes: list[Node]
    edges: list[Edge]
    share: float
    """Of the absolute scores of all nodes, what those that are kept have."""

    @property
    def target(self) -> int:
        return len(self.nodes)

    @property
    def remainder(self) -> int:
        return len(self.nodes) + 1


def chosen(
    network: Network, scores: Sequence[Tensor], share: float, most: int
) -> tuple[list[Node], float]:
    """The nodes of largest score that have a share of the absolute sum, but no more than `most`;
    every embedding beside them. In the order of the tape.

    Returns:
        The nodes, and the share that they have, embeddings left out.
    """
    free = [n for n, part in enumerate(network.parts) if part.kind != "embedding"]
    flat = torch.cat([scores[n].flatten().abs().double() for n in free])
    order = flat.argsort(descending=True, stable=True)[:most]
    reached = flat[order].cumsum(0) / flat.sum().clamp_min(torch.finfo(torch.double).tiny)
    count = min(len(order), int((reached < share).sum()) + 1)
    starts = torch.tensor([scores[n].numel() for n in free]).cumsum(0)
    nodes = [
        Node(n, (position,))
        for n, part in enumerate(network.parts)
        if part.kind == "embedding"
        for position in range(len(scores[n]))
    ]
    for at in order[:count].tolist():
        which = int((starts <= at).sum())
        part = free[which]
        inside = at - (int(starts[which - 1]) if which else 0)
        nodes.append(
            Node(
                part, tuple(map(int, torch.unravel_index(torch.tensor(inside), scores[part].shape)))
            )
        )
    nodes.sort(key=lambda node: (network.parts[node.part].slot, node.at))
    return nodes, float(reached[count - 1])


def drawn(
    network: Network, nodes: list[Node], share: float, told: Callable[[int], None]
) -> tuple[list[Edge], float]:
    """The edges between nodes, and into the target, that have a share of their absolute sum (with a
    counterfactual, of effects); what else flows into a node comes from the remainder.

    Args:
        told: hears of nodes that are done.

    Returns:
        The edges, and the largest difference of what flows into a node from what it has.
    """
    numbers = {node: n for n, node in enumerate(nodes)}
    target, remainder = len(nodes), len(nodes) + 1
    every: list[Edge] = []
    gap = network.value - network.counterfactual
    totals, error, done = {target: (network.value, gap)}, 0.0, 0
    flowing = [node for node in nodes if network.parts[node.part].flows]
    for flow in (network.flow_to_target(), *network.flows(flowing)):
        number = numbers[flow.node] if flow.node else target
        if flow.node:
            totals[number] = _has(network, flow.node)
            done += 1
            if done % AT_ONCE == 0 or done == len(flowing):
                told((done - 1) % AT_ONCE + 1)
        total = sum(torch.stack([each.double().sum() for each in flow.shares]).tolist())
        error = max(error, abs(total - totals[number][0]))
        weights = _at(nodes, flow.shares)
        effects = _at(nodes, flow.effects) if flow.effects else [NAN] * len(nodes)
        for source, (other, weight, effect) in enumerate(zip(nodes, weights, effects, strict=True)):
            if (weight or abs(effect) > 0) and other != flow.node:
                every.append(Edge(source, number, weight, effect))
    by = "weight" if network.effects is None else "effect"
    every.sort(key=lambda edge: -abs(getattr(edge, by)))
    sizes = torch.tensor([abs(getattr(edge, by)) for edge in every], dtype=torch.double)
    kept = every[: int((sizes.cumsum(0) < share * sizes.sum()).sum()) + 1]
    for number, (total, effect) in totals.items():
        shown = [edge for edge in kept if edge.target == number]
        weight = total - sum(edge.weight for edge in shown)
        kept.append(Edge(remainder, number, weight, effect - sum(edge.effect for edge in shown)))
    return kept, error


def _at(nodes: Sequence[Node], values: Sequence[Tensor]) -> list[float]:
    """Of values by part, the nodes' own; they leave the device together."""
    found: list[float] = torch.stack([values[node.part][node.at] for node in nodes]).tolist()
    return found


def _has(network: Network, node: Node) -> tuple[float, float]:
    """A node's attribution and effect."""
    effects = network.effects
    effect = float(effects[node.part][node.at]) if effects else NAN
    return float(network.attributions[node.part][node.at]), effect
