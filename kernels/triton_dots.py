"""Triton: single dot products in float64, without gathering their operands.

    dots(x, w, rows, ids)[p, c] = x[rows[p]] . w[ids[p, c]]        (0 where an id is negative)

Equivalent naive code, which holds a copy of w's row for every dot:

    torch.einsum("pcd,pd->pc", w[ids].double(), x[rows].double())

Every dot adds in the same order, so equal rows of w score equal to the last bit.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK, INNER = 8, 512
"""Dots of one program, and the most numbers it reads of each at a time."""


@triton.jit
def dots_kernel(
    x_ptr, w_ptr, rows_ptr, ids_ptr, out_ptr, count,
    D: tl.constexpr, C: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """Grid (pairs, count / C): dots C at a time of each row, `count` a row in all."""
    pair = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * C + tl.arange(0, C)
    ids = tl.load(ids_ptr + pair * count + at, mask=at < count, other=-1)
    used = (ids >= 0)[:, None]
    x_at = x_ptr + tl.load(rows_ptr + pair) * D
    w_at = w_ptr + tl.maximum(ids, 0)[:, None] * D
    total = tl.zeros((C,), tl.float64)
    for start in range(0, D, K):
        inner = start + tl.arange(0, K)
        x = tl.load(x_at + inner, mask=inner < D, other=0.0).to(tl.float32).to(tl.float64)
        w = tl.load(w_at + inner[None, :], mask=used & (inner < D)[None, :], other=0.0)
        total += tl.sum(w.to(tl.float32).to(tl.float64) * x[None, :], axis=1)
    tl.store(out_ptr + pair * count + at, total, mask=at < count)


def dots(x: Tensor, w: Tensor, rows: Tensor, ids: Tensor) -> Tensor:
    """[p, c] float64 of x [n, d], w [V, d] (contiguous), rows int64 [p] and ids int64 [p, c]."""
    pairs, count = ids.shape
    out = torch.empty(pairs, count, dtype=torch.float64, device=x.device)
    if out.numel():
        # the interpreter runs programs one after the other: few large ones
        block = BLOCK if x.device.type == "cuda" else triton.next_power_of_2(count)
        dots_kernel[(pairs, triton.cdiv(count, block))](
            x, w, rows.contiguous(), ids.contiguous(), out, count,
            D=x.shape[1], C=block, K=min(INNER, triton.next_power_of_2(x.shape[1])), num_warps=4,
        )  # fmt: skip
    return out
