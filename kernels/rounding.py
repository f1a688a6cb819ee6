"""Rounding the operands of a screen with the loss measured, and bounds on the errors of logits.

For x_hat, w_hat the rounded operands, the exact product of the two is off by at most

    |x - x_hat| |w_hat| + |x| |w - w_hat|

(Cauchy-Schwarz on the two residuals, whose norms are measured, not bounded). What the sums and the
output of a screen add is said where it is computed, in `bfloat16.py` and `integers.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from .blocks import INNER, each
from .candidates import MATH

STEP = 16
"""Rows of a tile are a multiple of this, so that torch never leaves oneDNN for a fallback."""
CHUNK = 1024
"""Rows that one worker rounds or measures at a time."""


class Rounded(NamedTuple):
    """A matrix in the numbers of a screen; `shift` was taken off each row before."""

    values: Tensor
    """[rows, d or more], padded with zeros."""
    scales: Tensor
    """float32 [rows]: what the values of a row are multiplied with."""
    lengths: np.ndarray
    """[rows] |w_hat|."""
    losses: np.ndarray
    """[rows] |w - shift - w_hat|."""
    mean: Tensor
    """float64 [d], the mean row before anything was taken off."""


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

    return in_chunks(chunk, *rows.shape), norms


def in_chunks(work: Callable[[int, int, np.ndarray], None], count: int, d: int) -> Tensor:
    """Mean row [d] in float64: `work(first, stop, total)` adds rows first to stop to a total."""
    starts = range(0, count, CHUNK)
    totals = np.zeros((len(starts), d))
    each(
        lambda at: work(starts[at], min(starts[at] + CHUNK, count), totals[at]), range(len(starts))
    )
    return torch.from_numpy(totals.sum(0) / max(count, 1))


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


Screened = Literal["screened", "screened8", "screened16"]
Tile = tuple[Tensor, np.ndarray]
"""Where products go, and its numpy view (`blocks.Buffers`)."""


class Format:
    """Numbers that a screen multiplies, and what that costs in precision."""

    name: ClassVar[Screened]
    """`impl` of `project_topk`."""
    unit: ClassVar[float]
    """Largest relative error of a screened logit that is due to the format of the logit itself."""
    columns: ClassVar[int]
    """Columns of a tile."""
    tile: ClassVar[torch.dtype]
    """Of the products."""
    number: ClassVar[torch.dtype]
    """Of the rounded operands."""
    bits: ClassVar[type] = np.int16
    """In which they are rounded: as wide as `number`, which numpy may lack."""
    mild: ClassVar[torch.dtype]
    """In which small corrections are computed."""
    fine: ClassVar[Format | None] = None
    """A finer format for the tokens that this one rounds worst, and for candidates before they are
    scored in float64."""
    sample: ClassVar[int] = 2048
    """Rows of the read-out that give its second moments."""
    spread: ClassVar[float] = 1.0
    """Error over standard deviation of the logits, of real models over Gaussian data."""

    @property
    def bytes(self) -> int:
        """Of a number of the read-out, in this format and the finer one."""
        return self.number.itemsize + (self.fine.bytes if self.fine else 0)

    def supported(self) -> bool:
        """Whether this processor multiplies such numbers in hardware."""
        raise NotImplementedError

    def fast(self) -> bool:
        """Whether torch uses that hardware, where this is in doubt."""
        return True

    def sound(self) -> bool:
        """Whether products here keep to `error`."""
        return True

    def loss(self, d: int) -> float:
        """Typical |x - x_hat| |w| + |x| |w - w_hat| of rows of d numbers, over |x| |w|."""
        raise NotImplementedError

    def error(self, x: Rounded, longest: float, largest_loss: float) -> np.ndarray:
        """[n] bound on the error of each row's screened logits, without the logit's own rounding.

        Args:
            x: the rounded vectors, from which nothing was taken off.
            longest: largest |w_hat| of the read-out.
            largest_loss: largest |w - w_hat|.
        """
        lengths = x.lengths + x.losses  # of x itself, by the triangle inequality
        tiny = x.values.shape[1] * 2.0**-124 * (1.0 + longest + lengths)
        error = x.losses * longest + lengths * largest_loss + tiny
        error += self.summing(x.values.shape[1]) * x.lengths * longest
        return np.where(lengths > 0, error, 0.0)

    def summing(self, d: int) -> float:
        """Bound on the error of a sum of d products, over |x_hat| |w_hat|."""
        raise NotImplementedError

    def right(self, w: Rounded, slabs: int) -> list[Any]:
        """The read-out as `multiply` takes it, slab by slab; in the memory of its values, which may
        change."""
        raise NotImplementedError

    def multiply(self, x: Rounded, right: Any, tile: Tile) -> None:
        """The products of rows of x with a slab."""
        raise NotImplementedError

    def scan(self, x: Rounded, right: Any, tile: Tile, *state: Any) -> None:
        """Scan a tile of products; `state` are further arguments of `scan.scan_tile`."""
        raise NotImplementedError

    def rows(self, *arrays: Any) -> None:
        """Round some rows (a compiled function, called as `round` does)."""
        raise NotImplementedError

    def round(
        self,
        matrix: Tensor,
        shift: Tensor,
        multiple: int,
        step: int = 1,
        factor: Tensor | None = None,
    ) -> Rounded:
        """`matrix - shift` (float32 [rows, d] and [d]), rows padded to a multiple, d to a pair.

        Each row is first multiplied with its `factor` [rows], a power of 2, where that is given.

        The rows are put in `step` slabs of equal size: rows 0, step, 2 step, ... come first, then
        rows 1, step + 1, ..., every slab padded by itself.
        """
        (rows, d), taken = matrix.shape, shift.numpy()
        factors = np.ones(rows, np.float32) if factor is None else factor.numpy()
        count = -(-rows // multiple) * multiple
        # numpy asks for huge pages, torch does not: a fifth of the time goes into small pages
        values: np.ndarray = np.empty((count, d + d % 2), self.bits)
        values.reshape(step, count // step, d + d % 2)[:, rows // step :] = 0
        values[:, d:] = 0
        scales, (lengths, losses) = np.ones(count, np.float32), np.zeros((2, rows))
        given = matrix.numpy(), factors

        def chunk(first: int, stop: int, total: np.ndarray) -> None:
            self.rows(*given, first, stop, taken, step, values, scales, lengths, losses, total)

        mean = in_chunks(chunk, rows, d)
        kept = torch.from_numpy(values).view(self.number)
        return Rounded(kept, torch.from_numpy(scales), lengths, losses, mean)


def some_rows(x: Rounded, rows: slice) -> Rounded:
    """Some of the rounded vectors, padded to a multiple of STEP."""
    padded = slice(rows.start, -(-rows.stop // STEP) * STEP)
    return x._replace(values=x.values[padded], scales=x.scales[padded])
