"""The parts of a frozen network that are nodes of a circuit, and what flows through each.

Every part stands at one place of the tape. With g the gradient of something with respect to the
activations there, `shares(g)` splits g . activations among the part's nodes:

    Neurons      (position, neuron)                  g[t, i] a[t, i]
    Heads        (position, head, source position)   pattern[h, t, s] (v[s, h] . g[t, h])
    Whole        (position,)                         g[t] . x[t], of embeddings, of the MLP of a
                                                     layer of experts, of attention without heads
    Constants    (position,)                         g . what a module adds to anything (biases)

The nodes that something flows into have a seed: the gradient at the part that is the node's own,
which leads back to what the node is made of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

Index = tuple[int, ...]
HEADS = ("attn_pattern", "head_v")
"""The sites that tell what heads carry, and from where."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Nodes of one kind at one layer."""

    kind: str
    layer: int
    """-1 before the first layer."""
    slot: int
    """Its place on the tape; what flows into it has a lower one."""
    flows: bool = True
    """Whether anything flows into it."""

    batched: ClassVar[bool] = True
    """Whether its tensor on the tape has the prompt as a batch of one."""

    def alone(self, gradient: Tensor, axis: int = 0) -> Tensor:
        """A gradient with respect to its tensor on the tape, without the batch."""
        return gradient.select(axis, 0) if self.batched else gradient

    def shares(self, gradients: Float[Tensor, "n pos ..."]) -> Float[Tensor, "n ..."]:
        """What each of its nodes has of n products gradient . activations."""
        raise NotImplementedError

    def seed(self, node: Index, row: Float[Tensor, "pos ..."]) -> Float[Tensor, "pos ..."]:
        """The part of `row`, the target's gradient here, that is a node's own."""
        own = torch.zeros_like(row)
        own[node] = row[node]
        return own

    def position(self, node: Index) -> int:
        return node[0]

    def source(self, node: Index) -> int | None:
        """The position that what flows into it comes from; None for several."""
        return node[0]

    def at(self, shares: Float[Tensor, "pos ..."], source: int | None) -> Float[Tensor, "pos ..."]:
        """The shares of the nodes at a position, all others 0."""
        if source is None:
            return shares
        own = torch.zeros_like(shares)
        own[source] = shares[source]
        return own

    def number(self, node: Index) -> int:
        """Of the neuron or head; -1 for kinds that have none."""
        return -1

    def name(self, node: Index) -> str:
        return f"{self.layer}.{self.kind}"

    def activation(self, node: Index) -> float:
        return float("nan")


@dataclass(frozen=True, kw_only=True)
class Neurons(Part):
    """The neurons of a layer's MLP; a node writes its activation times its row of W_down."""

    kind: str = "neuron"
    values: Float[Tensor, "pos d_mlp"]

    def shares(self, gradients: Tensor) -> Tensor:
        return gradients * self.values

    def number(self, node: Index) -> int:
        return node[1]

    def name(self, node: Index) -> str:
        return f"{self.layer}.down.{node[1]}"

    def activation(self, node: Index) -> float:
        return float(self.values[node])


@dataclass(frozen=True, kw_only=True)
class Heads(Part):
    """The heads of a layer: what each carries from one position to another."""

    kind: str = "head"
    patterns: Float[Tensor, "heads query key"]
    values: Float[Tensor, "key heads d_head"]
    """Of grouped queries, repeated for the heads that share them."""

    def shares(self, gradients: Tensor) -> Tensor:
        read = torch.einsum("nthd,shd->nths", gradients, self.values)
        return read * self.patterns.transpose(0, 1)

    def seed(self, node: Index, row: Tensor) -> Tensor:
        return super().seed(node[:2], row)

    def source(self, node: Index) -> int:
        return node[2]

    def number(self, node: Index) -> int:
        return node[1]

    def name(self, node: Index) -> str:
        return f"{self.layer}.head.{node[1]}"

    def activation(self, node: Index) -> float:
        """The pattern there."""
        position, head, source = node
        return float(self.patterns[head, position, source])

    def moved(self, node: Index) -> Float[Tensor, " d_head"]:
        """What the head carries from the source, before W_O."""
        position, head, source = node
        moved: Tensor = self.patterns[head, position, source] * self.values[source, head]
        return moved


@dataclass(frozen=True, kw_only=True)
class Whole(Part):
    """What a module gives at a position, as one node."""

    values: Float[Tensor, "pos d_model"]

    def shares(self, gradients: Tensor) -> Tensor:
        return (gradients * self.values).sum(-1)

    def source(self, node: Index) -> int | None:
        return None if self.kind == "attention" else node[0]


@dataclass(frozen=True, kw_only=True)
class Constants(Part):
    """What a module adds to anything: its biases, norms' means, offsets of slopes."""

    batched: ClassVar[bool] = False
    kind: str = "bias"
    flows: bool = False
    module: str
    values: Float[Tensor, ...]
    places: int = 1
    """The prompt's length, if it has a row a position; of what has other rows (an expert, one a
    token that it gets) all is one node, without a position."""

    @property
    def placed(self) -> bool:
        return self.places > 1

    def shares(self, gradients: Tensor) -> Tensor:
        products = (gradients * self.values).reshape(len(gradients), self.places, -1)
        return products.sum(2)

    def position(self, node: Index) -> int:
        return node[0] if self.placed else -1

    def at(self, shares: Tensor, source: int | None) -> Tensor:
        return super().at(shares, source) if self.placed else shares

    def name(self, node: Index) -> str:
        return self.module or "constant"
