"""Screens in whole numbers, whose sums are exact: int16 and int8 with int32 sums.

Each row is multiplied with a factor of its own and rounded to whole numbers. The factor makes the
row as long as int32 allows: |x . w| <= |x| |w| < 2^31, and the same holds for every part of the
sum. So nothing overflows. In int16 an outlier costs the other numbers of its row little, and a step
is |x| / 46,340 whatever the data. For 576 numbers that is 12 times finer than bfloat16.

In int8 the largest number sets the step instead, 1 / 127 of it. That is 4 times coarser than
bfloat16, so candidates are scored in int16 before they are in float64 (`sharpen.py`). With VNNI its
products take a quarter of float32's time.

Sums are exact. What is left beside the rounding of the operands (`rounding.py`) is float32's, when
a sum becomes a logit: it is converted and multiplied with the two factors' inverses.
"""

from __future__ import annotations

import math
import time
from functools import cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from . import madd
from .blocks import ROWS, each
from .candidates import MATH
from .lanes import fmax, rint
from .rounding import Format, Rounded, Tile
from .scan import scan_int32

MOST, MOST_8 = 32767.0, 127.0
"""Largest numbers of int16 and int8."""
ROOT = 46340.0
"""Largest length of a row of whole numbers: its square is below 2^31."""
LEAST = np.float32(2.0**-100)
"""Rows whose largest number is smaller are rounded to 0."""
QUICK = 0.4
"""Share of a float32 product's time that one in int8 takes at most, for it to be worthwhile."""
TRIES = 5
"""Products of which the fastest is compared."""


@njit(nogil=True, cache=True, fastmath=MATH)  # type: ignore[untyped-decorator]
def _round_rows(  # type: ignore[no-untyped-def]
    most, matrix, factor, first, stop, shift, step, out, scales, lengths, losses, total
):
    """Round `matrix * factor - shift` to multiples of a row's scale, `most` of them at most, into
    `out`, measure norms, add the matrix to `total`.

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
        steps = min(longest / np.sqrt(squares), np.float32(most))  # of the largest number
        scale, many = largest / steps, steps * inverse
        length = loss = np.float32(0.0)
        for i in range(d):
            value = many * (factor[r] * row[i] - shift[i])
            whole = rint(value)  # type: ignore[call-arg]
            narrow[i] = np.int16(whole)  # fits int8 where `out` is that
            length += whole * whole
            loss += (value - whole) * (value - whole)
        # each number was rounded four times in float32 on its way
        length, loss = 1.001 * np.sqrt(length), 1.001 * np.sqrt(loss)
        scales[place] = scale
        lengths[r] = scale * length
        losses[r] = scale * (loss + 2.0**-21 * (length + loss))


class Slab(NamedTuple):
    """A part of the read-out as it is multiplied, and the scales of its rows."""

    operand: Any
    scales: np.ndarray


class _Integers(Format):
    unit, columns = 2.0**-22, 512
    tile, mild = torch.int32, torch.float32
    most: ClassVar[float]
    """Largest number."""

    def rows(self, *arrays: Any) -> None:
        _round_rows(self.most, *arrays)

    def summing(self, d: int) -> float:
        return 0.0

    def scan(self, x: Rounded, right: Slab, tile: Tile, *state: Any) -> None:
        scan_int32(tile[1], x.scales.numpy(), right.scales, *state)


class Int16(_Integers):
    name, number, most = "screened16", torch.int16, MOST

    def supported(self) -> bool:
        return madd.supported()

    def loss(self, d: int) -> float:
        return 2.0 * math.sqrt(d / 12.0) / ROOT

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
        madd.multiply(x.values.numpy(), right.operand, tile[1])


INT16 = Int16()


class Int8(_Integers):
    name, number, most, bits = "screened8", torch.int8, MOST_8, np.int8
    fine, sample, spread = INT16, 8192, 1.7

    def supported(self) -> bool:
        return madd.has("avx512vnni") or madd.has("avxvnni")

    def fast(self) -> bool:
        return _fast()

    def sound(self) -> bool:
        return _sound()

    def loss(self, d: int) -> float:
        # the largest of d Gaussian numbers, in steps of which the rounding is uniform
        return 2.0 * math.sqrt(2.0 * math.log(2.0 * d)) / (MOST_8 * math.sqrt(12.0))

    def right(self, w: Rounded, slabs: int) -> list[Any]:
        parts = zip(w.values.chunk(slabs), w.scales.chunk(slabs), strict=True)
        return [Slab(values.T, scales.numpy()) for values, scales in parts]

    def multiply(self, x: Rounded, right: Slab, tile: Tile) -> None:
        torch._int_mm(x.values, right.operand, out=tile[0])


INT8 = Int8()


@cache
def _sound() -> bool:
    """Whether torch's int8 products here are exact: the largest ones are tried.

    Without VNNI, oneDNN may add pairs of products in int16, which saturates.
    """
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.rand(n, 576, generator=generator) - 0.4 for n in (16, 64))
    x, w = ((MOST_8 * part.sign()).to(torch.int8) for part in (x, w))
    exact = x.double() @ w.double().T
    return torch.equal(torch._int_mm(x, w.T).double(), exact)


@cache
def _fast() -> bool:
    """Whether a tile's product in int8 takes a small part of its time in float32.

    Where torch uses VNNI it takes 0.25, where not 25 times float32's time, so noise does not flip
    the answer: of each, the fastest of several in turn counts.
    """
    x = torch.ones(ROWS, 576)
    w, times = x.T, np.full((TRIES, 2), np.inf)
    outs = (torch.empty(ROWS, ROWS), torch.empty(ROWS, ROWS, dtype=torch.int32))
    x8, w8 = x.to(torch.int8), x.to(torch.int8).T

    def measure(_: int) -> None:  # in a worker thread, as products are made
        for own in times:
            start = time.thread_time()
            torch.mm(x, w, out=outs[0])
            middle = time.thread_time()
            torch._int_mm(x8, w8, out=outs[1])
            own[:] = middle - start, time.thread_time() - middle

    each(measure, range(1))
    single, whole = times.min(0)
    return bool(whole <= QUICK * single)
