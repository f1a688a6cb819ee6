"""What a coarse screen leaves to a finer format: the tokens that it rounds worst, and candidates.

The worst rounded token sets the bound for all. In int8 a token with one large number loses several
times as much as others, and of SmolLM2's tokens, the worst has 3.5 times the median's error. So one
token of HARD is screened in the finer format, in tiles of its own. The candidates among the others
are scored in it before they are in float64 (`sharpen.py`).

Positions. The easy tokens come first, then the hard ones, both by their ids. While they are
scanned, tokens go by their position in this `order`; `sharpen` gives them their ids back.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .blocks import State
from .rounding import STEP, Format, Rounded, Tile, some_rows
from .scaling import Operands
from .slabs import strided

HARD = 24
"""One token of so many is hard."""


class Fine:
    """Both operands in the finer format of a coarse one, and what is known of the coarse errors.

    Args:
        coarse: the format of the screen.
        operands: as they are multiplied; `shift` [d] is taken off the read-out.
        x, w: both in the coarse format, the read-out's rows by id.
    """

    def __init__(
        self, coarse: Format, operands: Operands, shift: Tensor, x: Rounded, w: Rounded
    ) -> None:
        assert coarse.fine
        self.numbers = numbers = coarse.fine
        self.unit = max(numbers.unit, coarse.unit)
        """Relative error of a score in either format, at most."""
        self.x = numbers.round(
            operands.vectors, torch.zeros_like(shift), STEP, factor=operands.factor
        )
        self.w = numbers.round(operands.readout, shift, 1)
        longest = float(self.w.lengths.max())
        self.error = numbers.error(self.x, longest, float(self.w.losses.max()))
        """[n] bound on the error of each row's fine scores."""
        self.longest = self.x.lengths * longest
        """[n] bound on the size of each row's fine scores."""
        self.easy, hard = _easy_and_hard(x, w)
        self.order = np.concatenate([self.easy, hard])
        """[V] token ids by position."""
        slabs = strided(len(hard), len(hard), coarse.columns)
        right = numbers.right(in_slabs(self.w, hard, coarse.columns), len(slabs)) if slabs else []
        moved = [slab._replace(first=len(self.easy) + slab.first) for slab in slabs]
        self.hard = list(zip(moved, right, strict=True))

    def scan(
        self, rows: slice, shrink: np.ndarray, tile: Tile, soft: np.ndarray, centre: np.ndarray,
        state: State, kept: int, stats: bool,
    ) -> np.ndarray:  # fmt: skip
        """Scan the hard tokens of some rows, in the units of coarse logits, which are still to be
        multiplied with `shrink` [rows].

        Returns a bound [rows] on what their logits are off in these units, without their own
        rounding.
        """
        own = some_rows(self.x, rows)
        scales = own.scales.clone()
        scales[: len(shrink)] /= torch.from_numpy(shrink)
        own = own._replace(scales=scales)
        for slab, right in self.hard:
            sizes = (slab.width, slab.first, slab.step)
            self.numbers.multiply(own, right, tile)
            self.numbers.scan(own, right, tile, *sizes, soft, centre, *state, kept, stats)
        moved = abs(1.0 / shrink.astype(np.float64) - 1.0) + 4.0 * self.unit
        error: np.ndarray = self.error[rows] + moved * self.longest[rows]
        return error

    def operands(self, rows: slice) -> tuple[Any, ...]:
        """Numbers of some vectors and of the read-out, the scales of both, ids by position."""
        x, w = self.x, self.w
        numbers = x.values[rows].numpy(), w.values.numpy()
        return *numbers, x.scales[rows].numpy(), w.scales.numpy(), self.order


def _easy_and_hard(x: Rounded, w: Rounded) -> tuple[np.ndarray, np.ndarray]:
    """Ids of the tokens that are rounded well and of the others, both in order."""
    many = max(len(w.lengths) - -(-len(w.lengths) // HARD), 1)
    share = np.median(x.losses / np.maximum(x.lengths, 1e-300)) if len(x.losses) else 0.0
    ranked = np.argsort(share * w.lengths + w.losses, kind="stable")
    return np.sort(ranked[:many]), np.sort(ranked[many:])


def in_slabs(w: Rounded, tokens: np.ndarray, columns: int) -> Rounded:
    """The rows of some tokens in strided slabs, each padded to `columns`; values and scales only
    are theirs."""
    step = -(-len(tokens) // columns)
    values = torch.zeros(step * columns, w.values.shape[1], dtype=w.values.dtype)
    scales = torch.ones(step * columns)
    at = np.arange(len(tokens))
    places = torch.from_numpy(at % step * columns + at // step)
    ids = torch.from_numpy(tokens)
    values[places], scales[places] = w.values[ids], w.scales[ids]
    return w._replace(values=values, scales=scales)
