"""Decoding vectors through the LM head: which of its rows are tokens, and what they score.

Vocabularies are padded to round sizes, and tokens are taken out of the middle. Such rows of the
unembedding stand for no text, and nothing trained them: they are left out of the ranking and of the
row's mean and deviation, unless all are asked for. Naive equivalent:

    logits = vectors @ W_U[ids_of_tokens].T
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import UserError
from .vocabulary import without_string

if TYPE_CHECKING:
    from interp.kernels import Extremes, Projection

    from .weights import Weights


class Readout(NamedTuple):
    """Rows of the unembedding, and the token id of each, ascending."""

    rows: Float[Tensor, "tokens d_model"]
    ids: Int[Tensor, " tokens"]

    def to(self, device: str) -> Readout:
        return Readout(self.rows.to(device), self.ids.to(device))

    def project(self, vectors: Float[Tensor, "n d_model"], k: int) -> Projection:
        """`kernels.project_topk` of these rows, with the ids of the vocabulary.

        Raises:
            UserError: there is a NaN or an infinity, or k is more than the tokens.
        """
        from interp.kernels import project_topk

        if not 1 <= k <= len(self.ids):
            raise UserError(f"the vocabulary has {len(self.ids)} tokens, not {k}")
        try:
            found = project_topk(vectors.to(self.rows.device), self.rows, k)
        except ValueError as error:
            raise UserError(f"these weights cannot be decoded: {error}") from error
        return found._replace(top=self._named(found.top), bottom=self._named(found.bottom))

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
