"""A screen in whole numbers, whose sums are exact: int16 with int32 sums.

Each row is multiplied with a factor of its own and rounded to whole numbers. The factor makes the
row as long as int32 allows: |x . w| <= |x| |w| < 2^31, and the same holds for every part of the
sum. So nothing overflows, an outlier costs the other numbers of its row little, and a step is
|x| / 46,340 whatever the data. For 576 numbers that is 12 times finer than bfloat16.

Sums are exact. What is left beside the rounding of the operands (`rounding.py`) is float32's, when
a sum becomes a logit: it is converted and multiplied with the two factors' inverses.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from . import madd
from .blocks import each
from .candidates import MATH
from .lanes import fmax, rint
from .rounding import Format, Rounded, Tile
from .scan import scan_int32

MOST = 32767.0
"""Largest number."""
ROOT = 46340.0
"""Largest length of a row of whole numbers: its square is below 2^31."""
LEAST = np.float32(2.0**-100)
"""Rows whose largest number is smaller are rounded to 0."""


@njit(nogil=True, cache=True, fastmath=MATH)  # type: ignore[untyped-decorator]
def _round_rows(  # type: ignore[no-untyped-def]
    matrix, factor, first, stop, shift, step, out, scales, lengths, losses, total
):
    """Round `matrix * factor - shift` to multiples of a row's scale into `out`, measure norms, add
    the matrix to `total`.

    Only rows first to stop are rounded. Row r goes where `Format.round` says.
    """
    d = matrix.shape[1]
    # float32 sums of squares are good to a part in a thousand; rounding makes a row a little longer
    longest = np.float32((ROOT - 0.51 * np.sqrt(d)) / 1.001)
    for r in range(first, stop):
        row, place = matrix[r], r % step * (out.shape[0] // step) + r // step
        narrow = out[place]
        for i in range(d):
            total[i] += np.float64(row[i])
        largest = np.float32(0.0)
        for i in range(d):
            largest = fmax(largest, abs(factor[r] * row[i] - shift[i]))  # type: ignore[call-arg]
        if largest < LEAST:
            narrow[:d] = 0
            losses[r] = np.sqrt(d) * np.float64(largest)
            continue
        inverse, squares = np.float32(1.0) / largest, np.float32(0.0)
        for i in range(d):
            u = inverse * (factor[r] * row[i] - shift[i])
            squares += u * u
        steps = min(longest / np.sqrt(squares), np.float32(MOST))  # of the largest number
        scale, many = largest / steps, steps * inverse
        length = loss = np.float32(0.0)
        for i in range(d):
            value = many * (factor[r] * row[i] - shift[i])
            whole = rint(value)  # type: ignore[call-arg]
            narrow[i] = np.int16(whole)
            length += whole * whole
            loss += (value - whole) * (value - whole)
        # each number was rounded four times in float32 on its way
        length, loss = 1.001 * np.sqrt(length), 1.001 * np.sqrt(loss)
        scales[place] = scale
        lengths[r] = scale * length
        losses[r] = scale * (loss + 2.0**-21 * (length + loss))


class Slab(NamedTuple):
    """A part of the read-out: rows in panels, and their scales."""

    panels: np.ndarray
    scales: np.ndarray


class Int16(Format):
    name, unit, columns = "screened16", 2.0**-22, 512
    tile, number, mild = torch.int32, torch.int16, torch.float32
    rows = staticmethod(_round_rows)

    def supported(self) -> bool:
        return madd.supported()

    def loss(self, d: int) -> float:
        return 2.0 * math.sqrt(d / 12.0) / ROOT

    def summing(self, d: int) -> float:
        return 0.0

    def right(self, w: Rounded, slabs: int) -> list[Any]:
        parts = zip(w.values.chunk(slabs), w.scales.chunk(slabs), strict=True)

        def slab(part: tuple[Tensor, Tensor]) -> Slab:
            rows, scales = (each.numpy() for each in part)
            panels = madd.in_panels(rows)
            into = rows.reshape(-1).view(panels.dtype).reshape(panels.shape)
            into[:] = panels
            return Slab(into, scales)

        return each(slab, parts)

    def multiply(self, x: Rounded, right: Slab, tile: Tile) -> None:
        madd.multiply(x.values.numpy(), right.panels, tile[1])

    def scan(self, x: Rounded, right: Slab, tile: Tile, *state: Any) -> None:
        scan_int32(tile[1], x.scales.numpy(), right.scales, *state)


INT16 = Int16()
