"""Decoding vectors through the LM head: which of its rows are tokens, and what they score.

Vocabularies are padded to round sizes, and tokens are taken out of the middle. Such rows of the
unembedding stand for no text, and nothing trained them: they are left out of the ranking and of the
row's mean and deviation, unless all are asked for. Naive equivalent:

    logits = vectors @ W_U[ids_of_tokens].T

Each vector is decoded at a length near 1 (`levelled`), so that how far its first token stands out
does not depend on how short or long it is; its logits are in its own units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import UserError
from .vocabulary import without_string

if TYPE_CHECKING:
    from interp.kernels import Extremes, Moments

    from .weights import Weights


class Decoded(NamedTuple):
    """What vectors score, at the length at which they are decoded."""

    top: Extremes
    bottom: Extremes
    moments: Moments
    scale: Float[Tensor, " n"]
    """How many times longer each vector is itself; a power of two, in float64."""

    @property
    def std(self) -> Float[Tensor, " n"]:
        """Of each row's logits, at that length; NaN where they are all the same, as a vector of
        zeros has them: it has no first token, and nothing of it stands out."""
        std = self.moments.var.sqrt()
        return torch.where(std > 0, std, torch.nan)

    def z(self, side: Extremes) -> Float[Tensor, " n"]:
        """How far the first logit of a side is above the row's mean, in its deviations."""
        above: Tensor = side.logits[:, 0] - self.moments.mean
        return above / self.std

    def logits(self, side: Extremes) -> Float[Tensor, "n k"]:
        """Of the vectors themselves, in float64."""
        logits: Tensor = side.logits.double() * self.scale[:, None]
        return logits


class Readout(NamedTuple):
    """Rows of the unembedding, and the token id of each, ascending."""

    rows: Float[Tensor, "tokens d_model"]
    ids: Int[Tensor, " tokens"]

    def to(self, device: str) -> Readout:
        return Readout(self.rows.to(device), self.ids.to(device))

    def decode(self, vectors: Float[Tensor, "n d_model"], k: int) -> Decoded:
        """`kernels.project_topk` of these rows, with the ids of the vocabulary.

        Raises:
            UserError: there is a NaN or an infinity, or k is more than the tokens.
        """
        from interp.kernels import project_topk

        if not 1 <= k <= len(self.ids):
            raise UserError(f"the vocabulary has {len(self.ids)} tokens, not {k}")
        near_one, scale = levelled(vectors)
        try:
            found = project_topk(near_one.to(self.rows.device), self.rows, k)
        except ValueError as error:
            raise UserError(f"these weights cannot be decoded: {error}") from error
        assert found.moments is not None
        sides = (self._named(found.top), self._named(found.bottom))
        return Decoded(*sides, found.moments, scale.to(self.rows.device))

    def _named(self, side: Extremes | None) -> Extremes:
        assert side is not None
        return side._replace(ids=self.ids[side.ids.long()].to(side.ids.dtype))


def open_readout(weights: Weights, all_ids: bool = False) -> Readout:
    """The unembedding's rows that stand for a token; with `all_ids`, every row."""
    size = weights.spec.d_vocab
    kept = torch.ones(size, dtype=torch.bool)
    kept[[] if all_ids else without_string(weights.folder, size)] = False
    W_U = weights.W_U()
    return Readout(W_U if bool(kept.all()) else W_U[kept], kept.nonzero()[:, 0])


def levelled(vectors: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
    """Vectors with their largest number between 1/2 and 1 in size, and what they were multiplied by
    to get there, inverted: a power of two each (in float64), so nothing is rounded. Zeros stay."""
    exponents = np.frexp(vectors.abs().amax(1).cpu().numpy())[1]
    half = exponents // 2  # the whole factor may be beyond float32
    first, second = (
        torch.from_numpy(np.ldexp(1.0, -part)).to(vectors)[:, None]
        for part in (half, exponents - half)
    )
    near_one = vectors * first
    near_one *= second
    return near_one, torch.from_numpy(np.ldexp(1.0, exponents))
