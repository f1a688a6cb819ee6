"""The stream after every layer at some positions of passages, and what the model says there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..model.site import Site
from ..model.subject import Subject
from ..model.weights import Weights
from .lens import read


class States(NamedTuple):
    """n positions of a batch of passages, passage by passage."""

    x: Float[Tensor, "layers n d"]
    """The stream after every layer."""
    own: Float[Tensor, "n v"]
    """The model's log-probabilities of the next token."""
    following: Int[Tensor, " n"]
    """The token that follows."""


class Reader(NamedTuple):
    """Reads states at positions that are drawn at random, as a number says."""

    subject: Subject
    weights: Weights
    W_U: Float[Tensor, "v d"]
    skip: int
    """Positions at the beginning of a passage that are not drawn, nor is the last, which has no
    next token."""
    positions: int
    """Positions of a passage."""
    seed: int

    def states(self, rows: Sequence[Sequence[int]], number: int) -> States:
        """Of passages of one length."""
        seed = 1_000_003 * self.seed + number
        return states_at(
            self, rows, drawn(len(rows), len(rows[0]), self.skip, self.positions, seed)
        )


def drawn(rows: int, length: int, skip: int, count: int, seed: int) -> Int[Tensor, "b n"]:
    """`count` different positions of each row, in order."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(rows, length - 1 - skip, generator=generator).argsort(1)
    return skip + order[:, :count].sort(1).values


def states_at(reader: Reader, rows: Sequence[Sequence[int]], places: Int[Tensor, "b n"]) -> States:
    """States of passages at the given positions of each."""
    batch = reader.subject.pad(rows)
    sites = [Site("resid_post", layer) for layer in range(reader.subject.spec.n_layers)]
    captured = reader.subject.capture(batch, sites)
    at = (
        torch.arange(len(rows), device=reader.subject.device)[:, None],
        places.to(reader.subject.device),
    )
    x = torch.stack([captured[site][at].flatten(0, 1).float() for site in sites])
    own = read(reader.weights, x[-1], reader.W_U).log_softmax(-1)
    return States(x, own, batch.ids[at[0], at[1] + 1].flatten())


def kl_from(own: Float[Tensor, "n v"], logits: Float[Tensor, "n v"]) -> Float[Tensor, " n"]:
    """KL of the model's distribution from the lens', sum p log(p/q), in nats."""
    kl: Tensor = (own.exp() * (own - logits.log_softmax(-1))).sum(-1)
    return kl
