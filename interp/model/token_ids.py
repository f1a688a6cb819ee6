"""Token ids as a model takes them, or one line that says what they are instead."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from ..errors import UserError


def token_ids(
    given: Tensor | Sequence[int], d_vocab: int, dims: tuple[int, ...] = (1, 2)
) -> Int[Tensor, ...]:
    """Ids of a text [pos], or of several [batch, pos].

    Raises:
        UserError: they are no whole numbers, have another number of dimensions than one of `dims`,
            are none at all, or beyond the model's vocabulary.
    """
    try:
        ids = torch.as_tensor(given)
    except (OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"these are no token ids: {str(error).splitlines()[0]}") from error
    if not ids.numel():
        raise UserError("an empty prompt: give at least one token")
    if ids.dtype == torch.bool or ids.is_floating_point() or ids.is_complex():
        kind = str(ids.dtype).removeprefix("torch.")
        raise UserError(f"token ids are whole numbers, not {kind}: give a tensor of dtype long")
    if ids.ndim not in dims:
        wanted = " or ".join(("[pos]", "[batch, pos]")[n - 1] for n in dims)
        raise UserError(f"token ids have the shape {wanted}, not {list(ids.shape)}")
    low, high = int(ids.min()), int(ids.max())
    if not 0 <= low <= high < d_vocab:
        strange = low if low < 0 else high
        raise UserError(f"token ids must be in 0..{d_vocab - 1}, which {strange} is not")
    return ids.long()
