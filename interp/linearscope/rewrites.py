"""Calls that are written out in others, each of which is followed: name -> the same on Duals.

Sums of products (addcmul, lerp, baddbmm, ...), choices (choices.py) and attention modules
(attention.py). Arguments have the names that torch gives them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .attention import multi_head_attention
from .choices import CHOICES
from .gates import PIECE, at_least
from .tape import references


def _addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    return input + tensor1 * tensor2 * value


def _addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    return input + tensor1 / tensor2 * value


def _lerp(input: Tensor, end: Tensor, weight: Any) -> Tensor:
    moved: Tensor = input + (end - input) * weight
    return moved


def _adding(product: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """beta * input + alpha * product(a, b); with beta = 0 the input is not looked at."""

    def rewritten(
        input: Tensor, *args: Tensor, beta: float = 1, alpha: float = 1, **kwargs: Tensor
    ) -> Tensor:
        made = product(*args, *kwargs.values()) * alpha
        return made if beta == 0 else input * beta + made

    return rewritten


def _bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    made = torch.einsum("...i,oij,...j->...o", input1, weight, input2)
    return made if bias is None else made + bias


def _broadcast_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
    shape = torch.Size(np.broadcast_shapes(*(tensor.shape for tensor in tensors)))
    return tuple(tensor.expand(shape) for tensor in tensors)


def _normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    scaled = input / references(input).norm(p, dim, keepdim=True).clamp_min(eps)
    made: Tensor = at_least(PIECE, scaled)
    return made


def _local_response_norm(
    input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """The scale, of the mean square of `size` channels, is frozen."""
    squares = references(input).square().movedim(1, -1)
    around = F.pad(squares, (size // 2, (size - 1) // 2)).unfold(-1, size, 1).mean(-1)
    return input / (around.movedim(-1, 1) * alpha + k) ** beta


REWRITES: dict[str, Callable[..., Any]] = {
    **CHOICES,
    "multi_head_attention_forward": multi_head_attention,
    "addcmul": _addcmul,
    "addcdiv": _addcdiv,
    "lerp": _lerp,
    **dict.fromkeys(("addmm", "addmv", "baddbmm"), _adding(torch.matmul)),
    "addbmm": _adding(lambda a, b: (a @ b).sum(0)),
    "addr": _adding(lambda a, b: a.unsqueeze(-1) * b),
    "bilinear": _bilinear,
    "broadcast_tensors": _broadcast_tensors,
    "normalize": _normalize,
    "local_response_norm": _local_response_norm,
}
