"""Scores of many directions over a stream of activations: moments and the best examples of each.

Equivalent naive code, over all activations x [tokens, d] at once:

    s = x @ directions.T;  s.mean(0), s.var(0), s.aminmax(dim=0), s.topk(k, dim=0)

but in the memory of one batch. Products in float32, moments in float64. Equal scores keep the order
of the stream, so the result does not depend on how it is cut into batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .statistics import Statistics

CHUNK = 1024
"""Directions scored at once."""

Score = Callable[[Tensor], Tensor]
"""Activations [tokens, d] -> scores [tokens, n]."""


class Scores(NamedTuple):
    """What a stream says of n directions; in `top`, the best of k comes first."""

    statistics: Statistics
    """Of the scores: mean and var are [n]."""
    smallest: Float[Tensor, " n"]
    largest: Float[Tensor, " n"]
    top: Float[Tensor, "n k"]
    rows: Int[Tensor, "n k"]
    positions: Int[Tensor, "n k"]
    """Each top score's row and place in it."""

    def join(self, later: Scores, keep: int) -> Scores:
        """The scores of a part of the stream, joined with those of a later part."""
        top, rows, positions = (
            torch.cat(pair, 1) for pair in zip(self[3:], later[3:], strict=True)
        )
        return Scores(
            self.statistics.merge(later.statistics),
            torch.minimum(self.smallest, later.smallest),
            torch.maximum(self.largest, later.largest),
            *_best(top, rows, positions, keep),
        )


class RunningScores:
    """Scores of the activations added so far.

    Args:
        directions: [n, d], scored in float32; or functions of activations [tokens, d], each of
            which gives the scores [tokens, some] of some of them.
        keep: best examples kept of each (fewer if there are fewer activations).
    """

    def __init__(self, directions: Float[Tensor, "n d"] | Sequence[Score], keep: int = 10) -> None:
        if keep < 1:
            raise ValueError(f"keep is {keep}: keep at least 1 example")
        if isinstance(directions, Tensor):
            if directions.ndim != 2:
                raise ValueError(f"expected directions [n, d], got {list(directions.shape)}")
            chunks = torch.split(directions.detach().float(), CHUNK)
            self._pieces: Sequence[Score] = [partial(_products, chunk) for chunk in chunks]
        else:
            self._pieces = directions
        self._keep = keep
        self._running: list[Scores] = []

    def add(
        self,
        x: Float[Tensor, "tokens d"],
        rows: Int[Tensor, " tokens"],
        positions: Int[Tensor, " tokens"],
    ) -> None:
        """Score one batch; `rows` and `positions` say where each activation comes from.

        Raises:
            ValueError: activations of another width, or a score that is not finite.
        """
        batch = []
        if not len(x):
            return  # a batch of which nothing counts
        for piece in self._pieces:
            scores = piece(x).float().T.contiguous()
            moments = Statistics.of(scores.T)
            if not torch.isfinite(moments.mean).all():
                raise ValueError("a score is not finite: compute in float32")
            places = rows.expand_as(scores), positions.expand_as(scores)
            extremes = torch.aminmax(scores, dim=1)
            batch.append(Scores(moments, *extremes, *_best(scores, *places, self._keep)))
        joined = (a.join(b, self._keep) for a, b in zip(self._running, batch, strict=True))
        self._running = list(joined) if self._running else batch

    def result(self) -> Scores:
        """The scores of everything added.

        Raises:
            ValueError: nothing was added.
        """
        if not self._running:
            raise ValueError("no activations were added, so there are no scores")
        moments, *rest = zip(*self._running, strict=True)
        means, squares = (torch.cat([getattr(m, n) for m in moments]) for n in ("mean", "squares"))
        whole = Statistics(moments[0].count, means, squares)
        return Scores(whole, *map(torch.cat, rest))


def _products(directions: Tensor, x: Tensor) -> Tensor:
    if x.shape[1] != directions.shape[1]:
        raise ValueError(
            f"directions of {directions.shape[1]} numbers do not fit activations of {x.shape[1]}"
        )
    products: Tensor = x.float() @ directions.to(x.device).T
    return products


def _best(
    scores: Tensor, rows: Tensor, positions: Tensor, keep: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The highest scores [n, keep] and their places; the first of equal ones comes first.

    topk may take any of equal values, so it gets whole numbers that all differ: the bits of a
    float32, ordered as the floats are, and below them the column, counted down.
    """
    bits = (scores + 0.0).view(torch.int32).long()  # adding 0 makes -0 equal to 0
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    keys = (ordered << 32) - torch.arange(scores.shape[1], device=scores.device)
    at = keys.topk(min(keep, keys.shape[1])).indices
    return scores.gather(1, at), rows.gather(1, at), positions.gather(1, at)
