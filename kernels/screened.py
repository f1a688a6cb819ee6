"""The fused projection on the CPU, screened in few bits and proven: products take less time.

The logits are computed in bfloat16, int8 or int16, tile by tile, and scanned as in `tiled.py`. The
best of them are scored again in float64 until nothing left can belong to the top k
(`exact.rescore`, with the bound of `rounding.py`); those of int8 in int16 first (`sharpen.py`). If
the candidates run out before that is proven, the row is searched again over the whole vocabulary in
float32. So ids and logits are exact whatever the data; the data only decide how many rows are
searched twice.

Centring. W - mean(W) has the same ranks and statistics as W, except that the mean and the logsumexp
differ by x . mean(W). Where the rows of W have a common part, it is taken off first. The bound
shrinks with the rows, and what rounding x does to the common part shifts no statistic.

Precision of the statistics. The mean is exact. The others are sums over screened logits, each off
at random: in bfloat16 by a relative 2^-9 or so, in int16 by much less, in int8 by a few times more.
Exact logits replace those of the rescored candidates, where heavy tails and concentrated
probability sit, and in int8 int16's replace those of all others that came near; the other errors
average out over the vocabulary. The statistics are less accurate than those of a float32 product
and far more accurate than those of a bfloat16 product; docs/kernels.md has the measured errors of
all paths. `impl="tiled"` computes them in float32.
"""

from __future__ import annotations

import math
import statistics
import threading
from itertools import starmap

import numpy as np
import torch
from torch import Tensor

from .bfloat16 import BFLOAT16
from .blocks import ROWS, Buffers, cut, each, new_state
from .fine import Fine, in_slabs
from .integers import INT8, INT16
from .projection import Projection
from .results import Results
from .rounding import STEP, Format, Rounded, float32_error, measure, some_rows
from .scaling import Operands
from .slabs import strided
from .tiled import project_tiled

FORMATS: tuple[Format, ...] = (BFLOAT16, INT8, INT16)
"""Fastest first, where the processor has them."""
SAMPLE = 2048
"""Rows of the read-out that decide whether it is centred."""
LONG = 4.0
"""Times the median length that a row of the sample counts for at most."""
DOUBT = 2.0**-4
"""Nats, or standard deviations, that a row may be off before it is computed in float32; what is
compared with it are estimates from above."""


def best_format() -> Format | None:
    """The numbers that this processor screens fastest with; None: float32 is as fast."""
    usable = (one for one in FORMATS if one.supported() and one.sound() and one.fast())
    return next(usable, None)


def worthwhile(vectors: Tensor, readout: Tensor) -> bool:
    """Whether screening saves more than rounding the read-out and scoring candidates cost."""
    (n, d), vocabulary = vectors.shape, len(readout)
    return n >= 2 * ROWS and d >= 256 and vocabulary >= 8192


def candidates(numbers: Format, k: int, d: int, vocabulary: int) -> int:
    """Candidates kept a side: as many as Gaussian logits have within the error of the k-th, plus 3
    standard deviations and a few."""
    if 2 * k >= vocabulary:
        return vocabulary
    normal = statistics.NormalDist()
    kth = -normal.inv_cdf(k / vocabulary)  # in standard deviations, as is the error
    loss = numbers.spread * numbers.loss(d) + numbers.summing(d)
    error = math.sqrt(d) * loss + numbers.unit * kth
    within = vocabulary * normal.cdf(error - kth)
    return min(math.ceil(within + 3.0 * math.sqrt(within) + 6.0), vocabulary)


class Screen:
    """Both operands made ready for screening: rounded, the read-out centred if that is tighter.

    `tokens` of the vocabulary are screened in `numbers`, the others in the finer format (`fine`).
    `error`, `float32_error` [n] bound the errors of each row's logits, screened (without the
    rounding of the logit) and in float32; `noise` [2, n] is the typical error of a screened one,
    and that of the worst token.
    """

    def __init__(self, numbers: Format, operands: Operands, stats: bool) -> None:
        readout, self.numbers = operands.readout, numbers
        nothing = torch.zeros(readout.shape[1])
        self.x = numbers.round(operands.vectors, nothing, STEP, factor=operands.factor)
        # rows without a common part, or ones that the format holds exactly, are better left alone
        some = readout[:: max(len(readout) // SAMPLE, 1)].contiguous()
        shifts = (nothing, measure(some)[0].float())
        bounds = [self._error(numbers.round(some, shift, 1)).sum() for shift in shifts]
        self.shift = shifts[int(np.argmin(bounds))]
        self.fine, self.tokens, columns = None, len(readout), numbers.columns
        if numbers.fine:
            self.w = numbers.round(readout, self.shift, 1)
            self.fine = Fine(numbers, operands, self.shift, self.x, self.w)
            ids, self.tokens = self.fine.easy, len(self.fine.easy)
            own: np.ndarray | slice
            own, self.w = ids, in_slabs(self.w, ids, columns)
            some = readout[torch.from_numpy(ids[:: max(len(ids) // numbers.sample, 1)])]
        else:
            slabs = len(strided(len(readout), 1, columns))
            own, self.w = slice(None), numbers.round(readout, self.shift, columns, slabs)
        self.right = numbers.right(self.w, len(strided(self.tokens, 1, columns)))
        self.error = self._error(self.w, own)
        longest = (self.w.lengths + self.w.losses).max() + float(self.shift.double().norm())
        lengths, d = self.x.lengths + self.x.losses, len(self.shift)
        self.float32_error = float32_error(lengths, longest, d)
        typical = lengths * np.median(self.w.losses) + self.x.losses * np.median(self.w.lengths)
        worst = np.maximum(self.error, self.fine.error) if self.fine else self.error
        self.noise = np.array([typical, worst]) / math.sqrt(d)
        self._moments = self._second_moments(some) if stats else None

    def _second_moments(self, some: Tensor) -> Tensor | None:
        """[d, d] second moments of the read-out up to a factor; None if the sample is small."""
        if len(some) < 2 * some.shape[1]:
            return None
        centred = some - self.shift
        # one row many times longer than others would decide for all
        lengths = centred.norm(dim=1)
        longest = LONG * lengths.median()
        shorter = longest / lengths.clamp_min(longest)
        centred = (centred * shorter[:, None]).to(self.numbers.mild)
        moments = torch.empty(some.shape[1], some.shape[1], dtype=self.numbers.mild)

        def multiply(_: int) -> None:
            torch.mm(centred.T, centred, out=moments)

        each(multiply, range(1))  # torch's own threads would cut the sum as many ways as there are
        return moments

    def shrink(self, own: Tensor, rows: slice) -> np.ndarray:
        """What the screened logits of some rows, `own`, are multiplied with in their statistics.

        Rounding x to x + e adds e . w_j to logit j. The part of it that goes with the logit,
        a x . w_j with a = e C x / x C x and C the second moments of W, does not average out over
        the vocabulary. Where C is not known it stays (it falls with 1 / sqrt(d)).
        """
        if self._moments is None:
            return np.ones(len(own), np.float32)
        x = self.x.values[rows, : own.shape[1]].to(self._moments.dtype)
        image = (x @ self._moments).float()  # roughly: only the small a needs it
        x = self.x.scales[rows, None] * x.float()
        image = self.x.scales[rows, None] * image
        along, more = (image * x).sum(1), (image * (own - x)).sum(1)
        return torch.where((along > 0) & (more > -along), 1.0 + more / along, 1.0).numpy()

    def _error(self, w: Rounded, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        longest, worst = float(w.lengths[rows].max()), float(w.losses[rows].max())
        return self.numbers.error(self.x, longest, worst)


def project_screened(
    numbers: Format,
    operands: Operands,
    k: int,
    sides: tuple[str, ...],
    stats: bool,
    min_certified: float = 0.0,
) -> Projection | None:
    """See `project_topk`; contiguous float32 on the CPU.

    None if a smaller share of the first block's rows than `min_certified` is certified: then
    searching rows again would cost more than screening saves.
    """
    if not numbers.sound():
        raise ValueError(f"the products of '{numbers.name}' are too coarse here: use 'tiled'")
    screen, results = Screen(numbers, operands, stats), Results(operands, k, sides)
    readout, columns = operands.readout, numbers.columns
    kept = candidates(numbers, k, readout.shape[1], len(readout))
    slabs = list(zip(strided(screen.tokens, kept, columns), screen.right, strict=True))
    buffers, hopeless = Buffers(numbers.tile, columns), threading.Event()

    def block(rows: slice) -> None:
        if hopeless.is_set():
            return
        exact = operands.rows(rows)
        shrink = screen.shrink(exact, rows)
        exact = exact.double()
        results.shift[rows] = exact @ screen.shift.double()
        results.mean[rows] = exact @ screen.w.mean
        centre = ((results.mean[rows] - results.shift[rows]) / shrink).astype(np.float32)
        state, soft = new_state(centre, kept, results.sides), results.soft(rows, shrink)
        own = some_rows(screen.x, rows)
        tile = buffers.view(len(own.values), columns)
        for slab, right in slabs:
            sizes = (slab.width, slab.first, slab.step)
            numbers.multiply(own, right, tile)
            numbers.scan(own, right, tile, *sizes, soft, centre, *state, slab.kept, stats)
        single, error, fine = screen.float32_error[rows], screen.error[rows], screen.fine
        if fine:
            others = fine.scan(rows, shrink, tile, soft, centre, state, kept, stats)
            error = np.maximum(error, others)
        shrink = shrink.astype(np.float64)
        shrunk = centre * shrink
        results.scanned(rows, state, shrink)
        if fine:
            results.sharpen(rows, state, fine, error, single, shrink, shrunk, stats)
            error, shrink = fine.error[rows], np.ones(len(shrink))
        everyone, errors = np.ones(len(centre), np.bool_), (error, numbers.unit)
        results.rescore(rows, state, kept, everyone, errors, single, shrink, shrunk, stats)
        results.sums[rows] = state.sums
        if rows.start == 0 and results.share(rows) < min_certified:
            hopeless.set()

    each(block, starmap(slice, cut(len(operands.vectors))))
    if hopeless.is_set():
        return None
    return results.projection(
        stats, numbers.name, screen.noise, DOUBT, lambda few: project_tiled(few, 1, sides, True)
    )
