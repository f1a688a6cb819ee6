"""The part of a network that is worth looking at: its largest nodes, the edges between them, and a
remainder for all else, so that what flows into a node still adds up to what it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .network import AT_ONCE, Network, Node


class Edge(NamedTuple):
    """What flows from a node to another, in the target's units; numbers in `Graph.nodes`."""

    source: int
    target: int
    weight: float


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
    """The edges between nodes, and into the target, that have a share of their absolute sum; what
    else flows into a node comes from the remainder.

    Args:
        told: hears of nodes that are done.

    Returns:
        The edges, and the largest difference of what flows into a node from what it has.
    """
    numbers = {node: n for n, node in enumerate(nodes)}
    target, remainder = len(nodes), len(nodes) + 1
    every: list[Edge] = []
    totals, error = {target: network.value}, 0.0
    into = [(None, network.flows_to_target())]
    done = 0
    flowing = [node for node in nodes if network.parts[node.part].flows]
    for node, shares in (*into, *network.flows(flowing)):  # type: ignore[misc]
        number = target if node is None else numbers[node]
        if node is not None:
            totals[number] = float(network.attributions[node.part][node.at])
            done += 1
            if done % AT_ONCE == 0 or done == len(flowing):
                told((done - 1) % AT_ONCE + 1)
        total = sum(float(each.double().sum()) for each in shares)
        error = max(error, abs(total - totals[number]))
        for source, other in enumerate(nodes):
            weight = float(shares[other.part][other.at])
            if weight and other != node:
                every.append(Edge(source, number, weight))
    every.sort(key=lambda edge: -abs(edge.weight))
    sizes = torch.tensor([abs(edge.weight) for edge in every], dtype=torch.double)
    count = int((sizes.cumsum(0) < share * sizes.sum()).sum()) + 1
    kept = every[:count]
    for number, total in totals.items():
        shown = sum(edge.weight for edge in kept if edge.target == number)
        kept.append(Edge(remainder, number, total - shown))
    return kept, error
