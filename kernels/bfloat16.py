"""A screen in bfloat16: products at twice float32's rate, rounded to bfloat16.

With exact products and float32 sums in any order, and the sum rounded to bfloat16, a screened logit
s_hat is off, beside what rounding the operands costs (`rounding.py`), by at most

    gamma |x_hat| |w_hat| + 2^-8 |s_hat| + tiny

(gamma as in Higham, Accuracy and Stability of Numerical Algorithms, 3.1; bfloat16 has 8
significant bits, so its unit roundoff is 2^-8; `tiny` is for subnormal numbers, which bfloat16
instructions flush to zero).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numba import njit

from .candidates import MATH
from .lanes import bits_as_float, float_bits, fmax
from .rounding import Format, Rounded, Tile
from .scan import scan_bfloat16

UNIT = 2.0**-8
"""Largest relative error of rounding to bfloat16."""


@njit(nogil=True, cache=True, fastmath=MATH)  # type: ignore[untyped-decorator]
def _round_rows(  # type: ignore[no-untyped-def]
    matrix, factor, first, stop, shift, step, out, scales, lengths, losses, total
):
    """Round `matrix * factor - shift` to nearest even into `out` (as int16), measure norms, add the
    matrix to `total`.

    Only rows first to stop are rounded. Row r goes where `Format.round` says.
    """
    for r in range(first, stop):
        row, narrow = matrix[r], out[r % step * (out.shape[0] // step) + r // step]
        for i in range(row.shape[0]):
            total[i] += np.float64(row[i])
        length = loss = whole = largest = np.float32(0.0)
        for i in range(row.shape[0]):
            value = factor[r] * row[i] - shift[i]
            bits = np.uint32(float_bits(value))  # type: ignore[call-arg]
            odd = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
            up = np.uint32(np.uint32(bits + odd) + np.uint32(0x7FFF))
            high = np.int32(np.uint32(up >> np.uint32(16)))
            narrow[i] = np.int16(high)
            rounded = bits_as_float(np.int32(high << np.int32(16)))  # type: ignore[call-arg]
            lost = value - rounded  # exact
            length += rounded * rounded
            loss += lost * lost
            whole += value * value
            largest = fmax(largest, abs(value))  # type: ignore[call-arg]
        # float32 sums of squares are good to a part in a thousand, but for terms that underflow
        # (the last summand); the subtraction of the shift was rounded too
        lost_squares = np.sqrt(row.shape[0]) * 2.0**-63 if largest > 0 else 0.0
        lengths[r] = 1.001 * np.sqrt(length) + lost_squares
        losses[r] = 1.001 * np.sqrt(loss) + 2.0**-23 * np.sqrt(whole) + lost_squares


class Bfloat16(Format):
    name, unit, columns = "screened", UNIT, 1024
    tile = number = mild = torch.bfloat16
    rows = staticmethod(_round_rows)

    def supported(self) -> bool:
        flags = torch.cpu.get_capabilities()
        return bool(flags.get("avx512_bf16") or flags.get("amx_bf16"))

    def sound(self) -> bool:
        return _sound()

    def loss(self, d: int) -> float:
        return 0.0036

    def summing(self, d: int) -> float:
        # twice the gamma of IEEE arithmetic: bfloat16 instructions may also round sums of pairs
        du = 2.0 * d * 2.0**-24
        return du / (1.0 - du)

    def right(self, w: Rounded, slabs: int) -> list[Any]:
        return [part.T for part in w.values.chunk(slabs)]

    def multiply(self, x: Rounded, right: Any, tile: Tile) -> None:
        torch.mm(x.values, right, out=tile[0])

    def scan(self, x: Rounded, right: Any, tile: Tile, *state: Any) -> None:
        scan_bfloat16(tile[1], *state)


BFLOAT16 = Bfloat16()


@cache
def _sound() -> bool:
    """Whether torch's bfloat16 products here keep to the bound: one is tried.

    Its operands are all positive: sums kept in bfloat16 would stop growing, far outside the bound.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(16, 4096, generator=generator)
    w = torch.rand(1024, 4096, generator=generator)
    rounded = [BFLOAT16.round(a, torch.zeros(4096), 1) for a in (x, w)]
    exact = x.double() @ w.double().T
    screened = torch.mm(rounded[0].values, rounded[1].values.T).double()
    error = BFLOAT16.error(rounded[0], rounded[1].lengths.max(), rounded[1].losses.max())
    allowed = torch.from_numpy(error)[:, None] + UNIT * screened.abs()
    return bool(((screened - exact).abs() <= allowed).all())
