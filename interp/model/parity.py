"""What a subject is held against when it is opened: plain transformers."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ..errors import UserError
from .identities import rounding


def parity(
    own: Float[Tensor, "n d_vocab"], plain: Float[Tensor, "n d_vocab"], model: str, backend: str
) -> float:
    """The largest difference of a backend's logits from transformers'.

    Raises:
        UserError: they are others, or the model's are not finite (Gemma's in float16).
    """
    if not plain.isfinite().all():
        raise UserError(
            f"this {model} model's own logits are not finite in "
            f"{str(plain.dtype).removeprefix('torch.')}: open it in float32 or bfloat16"
        )
    largest = float((own - plain).abs().max())
    if not largest <= rounding(plain):
        raise UserError(
            f"the {backend} backend gives other logits for this {model} model than transformers "
            f"does, by up to {largest:.1e}"
            + ("" if backend == "native" else ": use backend='native'")
        )
    return largest
