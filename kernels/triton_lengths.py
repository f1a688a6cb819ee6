"""Triton: lengths of rows, of their losses to bfloat16, and their products with one vector."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def lengths_kernel(
    x_ptr, factor_ptr, rounded_ptr, along_ptr, length_ptr, loss_ptr, dot_ptr,
    D: tl.constexpr, K: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """float64 |x'|, |x - x'| and x . along of a row x times its factor, and its bfloat16 copy x'.
    EXACT: x is x'."""
    row = tl.program_id(0).to(tl.int64)
    factor = tl.load(factor_ptr + row)
    squares = tl.zeros((K,), tl.float64)
    lost = tl.zeros((K,), tl.float64)
    dot = tl.zeros((K,), tl.float64)
    for start in range(0, D, K):
        inner = start + tl.arange(0, K)
        used = inner < D
        own = tl.load(rounded_ptr + row * D + inner, mask=used, other=0.0)
        own = own.to(tl.float32).to(tl.float64)
        squares += own * own
        if not EXACT:
            x = tl.load(x_ptr + row * D + inner, mask=used, other=0.0)
            x = x.to(tl.float32).to(tl.float64) * factor
            lost += (x - own) * (x - own)
            own = x
        dot += own * tl.load(along_ptr + inner, mask=used, other=0.0).to(tl.float64)
    tl.store(length_ptr + row, tl.sqrt(tl.sum(squares, axis=0)))
    tl.store(loss_ptr + row, tl.sqrt(tl.sum(lost, axis=0)))
    tl.store(dot_ptr + row, tl.sum(dot, axis=0))


def lengths(
    x: Tensor, factor: Tensor, rounded: Tensor, along: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """[n] float64 each: |x'|, |x - x'| and x . along of rows x [n, d], times their factor [n]
    (float64), and their bfloat16 copy."""
    n, d = x.shape
    length, loss, dot = torch.empty(3, n, dtype=torch.float64, device=x.device)
    exact = x.dtype == torch.bfloat16
    lengths_kernel[(n,)](
        x, factor, rounded, along, length, loss, dot,
        D=d, K=min(256, triton.next_power_of_2(d)), EXACT=exact, num_warps=1,
    )  # fmt: skip
    return length, loss, dot
