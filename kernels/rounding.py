"""Rounding to bfloat16 with the loss measured, and bounds on the errors of logits (numba).

For x_hat, w_hat the rounded operands, multiplied with exact products and float32 sums in any order,
and the sum rounded to bfloat16, the screened logit s_hat is off by at most

    |x - x_hat| |w_hat| + |x| |w - w_hat| + gamma |x_hat| |w_hat| + 2^-8 |s_hat| + tiny

(Cauchy-Schwarz on the two residuals, whose norms are measured, not bounded; gamma as in Higham,
Accuracy and Stability of Numerical Algorithms, 3.1; bfloat16 has 8 significant bits, so its unit
roundoff is 2^-8; `tiny` is for subnormal numbers, which bfloat16 instructions flush to zero).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from .blocks import INNER, each
from .candidates import MATH
from .lanes import bits_as_float, float_bits, fmax

UNIT = 2.0**-8
"""Largest relative error of rounding to bfloat16."""
CHUNK = 1024
"""Rows that one worker rounds or measures at a time."""


class Rounded(NamedTuple):
    """A matrix in bfloat16; `shift` was taken off each row before."""

    values: Tensor
    """bfloat16 [rows, d], padded with rows of zeros to a multiple that the caller chooses."""
    lengths: np.ndarray
    """[rows] |w_hat|."""
    losses: np.ndarray
    """[rows] |w - shift - w_hat|."""
    mean: Tensor
    """float64 [d], the mean row before anything was taken off."""


@njit(nogil=True, cache=True, fastmath=MATH)  # type: ignore[untyped-decorator]
def _round_rows(  # type: ignore[no-untyped-def]
    matrix, factor, first, stop, shift, step, out, lengths, losses, total
):
    """Round `matrix * factor - shift` to nearest even into `out` (as int16), measure norms, add the
    matrix to `total`.

    Only rows first to stop are rounded. Row r goes where `round_to_bfloat16` says.
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


@njit(nogil=True, cache=True, fastmath=MATH)  # type: ignore[untyped-decorator]
def _measure(matrix, total, norms):  # type: ignore[no-untyped-def]
    """Add the rows of a matrix to `total` and write their lengths, both in float64."""
    for r in range(matrix.shape[0]):
        row, squares = matrix[r], 0.0
        for i in range(row.shape[0]):
            value = np.float64(row[i])
            total[i] += value
            squares += value * value
        norms[r] = np.sqrt(squares)


def measure(matrix: Tensor) -> tuple[Tensor, np.ndarray]:
    """Mean row [d] and row lengths [rows] of a float32 matrix, float64, in a fixed order."""
    rows, norms = matrix.numpy(), np.zeros(len(matrix))

    def chunk(first: int, stop: int, total: np.ndarray) -> None:
        _measure(rows[first:stop], total, norms[first:stop])

    return _in_chunks(chunk, *rows.shape), norms


def _in_chunks(work: Callable[[int, int, np.ndarray], None], count: int, d: int) -> Tensor:
    """Mean row [d] in float64: `work(first, stop, total)` adds rows first to stop to a total."""
    starts = range(0, count, CHUNK)
    totals = np.zeros((len(starts), d))
    each(
        lambda at: work(starts[at], min(starts[at] + CHUNK, count), totals[at]), range(len(starts))
    )
    return torch.from_numpy(totals.sum(0) / max(count, 1))


def round_to_bfloat16(
    matrix: Tensor, shift: Tensor, multiple: int, step: int = 1, factor: Tensor | None = None
) -> Rounded:
    """`matrix - shift` (float32 [rows, d] and [d]) in bfloat16, rows padded to a multiple.

    Each row is first multiplied with its `factor` [rows], a power of 2, where that is given.

    The rows are put in `step` slabs of equal size: rows 0, step, 2 step, ... come first, then rows
    1, step + 1, ..., every slab padded by itself.
    """
    rows, taken = matrix.numpy(), shift.numpy()
    factors = np.ones(len(rows), np.float32) if factor is None else factor.numpy()
    count = -(-len(rows) // multiple) * multiple
    # numpy asks for huge pages, torch does not: a fifth of the time goes into small ones' faults
    bits = np.empty((count, rows.shape[1]), np.int16)
    bits.reshape(step, count // step, rows.shape[1])[:, len(rows) // step :] = 0
    lengths, losses = np.zeros(len(rows)), np.zeros(len(rows))

    def chunk(first: int, stop: int, total: np.ndarray) -> None:
        _round_rows(rows, factors, first, stop, taken, step, bits, lengths, losses, total)

    mean = _in_chunks(chunk, *rows.shape)
    return Rounded(torch.from_numpy(bits).view(torch.bfloat16), lengths, losses, mean)


def float32_error(lengths: np.ndarray, longest: float, d: int) -> np.ndarray:
    """[n] bound on the error of each row's float32 logits: gamma |x| |w|, gamma = d u / (1 - d u).

    Args:
        lengths: [n] |x|, or more.
        longest: largest |w|, or more.
        d: number of terms.
    """
    du = (min(d, INNER) + -(-d // INNER) - 1) * 2.0**-24  # see `blocks.product`
    error = 1.001 * du / (1.0 - du) * lengths * longest + d * 2.0**-148  # the last for underflow
    return np.where(lengths > 0, error, 0.0)


def screening_error(x: Rounded, longest: float, largest_loss: float) -> np.ndarray:
    """[n] bound on the error of each row's screened logits, without the rounding of the output.

    Args:
        x: the rounded vectors, from which nothing was taken off.
        longest: largest |w_hat| of the read-out.
        largest_loss: largest |w - w_hat|.
    """
    d = x.values.shape[1]
    # twice the gamma of IEEE arithmetic: bfloat16 instructions may also round sums of pairs
    du = 2.0 * d * 2.0**-24
    gamma = du / (1.0 - du)
    lengths = x.lengths + x.losses  # of x itself, by the triangle inequality
    tiny = d * 2.0**-124 * (1.0 + longest + lengths)
    error = x.losses * longest + lengths * largest_loss + gamma * x.lengths * longest + tiny
    return np.where(lengths > 0, error, 0.0)
