"""The fused projection on the CPU, screened in bfloat16 and proven: products take half the time.

The logits are computed in bfloat16, tile by tile, and scanned as in `tiled.py`. The best of them
are scored again in float64 until nothing left can belong to the top k (`exact.rescore`, with the
bound of `rounding.py`). If the candidates run out before that is proven, the row is searched again
over the whole vocabulary in float32. So ids and logits are exact whatever the data; the data only
decide how many rows are searched twice.

Centring. W - mean(W) has the same ranks and statistics as W, except that the mean and the logsumexp
differ by x . mean(W). Where the rows of W have a common part, it is taken off first. The bound
shrinks with the rows, and what rounding x does to the common part shifts no statistic.

Precision of the statistics. The mean is exact. The others are sums over screened logits, each off
by a relative 2^-9 or so, at random. Exact logits replace those of the rescored candidates, where
heavy tails and concentrated probability sit; the other errors average out over the vocabulary. The
statistics are less accurate than those of a float32 product and far more accurate than those of a
bfloat16 product; docs/kernels.md has the measured errors of all three. `impl="tiled"` computes
them in float32.
"""

from __future__ import annotations

import math
import statistics
import threading
from functools import cache
from itertools import starmap
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .blocks import ROWS, Buffers, cut, each, new_state
from .projection import Projection
from .results import Results
from .rounding import UNIT, Rounded, float32_error, round_to_bfloat16, screening_error
from .scaling import Operands
from .scan import scan_bfloat16
from .tiled import project_tiled

COLUMNS = 1024
"""Columns of a tile."""
SAMPLE = 2048
"""Rows of the read-out that decide whether it is centred, and give its second moments."""
LONG = 4.0
"""Times the median length that a row of the sample counts for at most."""
DOUBT = 2.0**-4
"""Nats, or standard deviations, that a row may be off before it is computed in float32; what is
compared with it are estimates from above."""
STEP = 16
"""Rows of a tile are a multiple of this, so that torch never leaves oneDNN for a fallback."""


def supported() -> bool:
    """Whether this processor multiplies bfloat16 in hardware."""
    flags = torch.cpu.get_capabilities()
    return bool(flags.get("avx512_bf16") or flags.get("amx_bf16"))


@cache
def sound() -> bool:
    """Whether torch's bfloat16 products here keep to the bound of `rounding.py`: one is tried.

    Its operands are all positive: sums kept in bfloat16 would stop growing, far outside the bound.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(STEP, 4096, generator=generator)
    w = torch.rand(COLUMNS, 4096, generator=generator)
    rounded = [round_to_bfloat16(a, torch.zeros(4096), 1) for a in (x, w)]
    exact = x.double() @ w.double().T
    screened = torch.mm(rounded[0].values, rounded[1].values.T).double()
    error = screening_error(rounded[0], rounded[1].lengths.max(), rounded[1].losses.max())
    allowed = torch.from_numpy(error)[:, None] + UNIT * screened.abs()
    return bool(((screened - exact).abs() <= allowed).all())


def worthwhile(vectors: Tensor, readout: Tensor) -> bool:
    """Whether screening saves more than rounding the read-out and scoring candidates cost."""
    (n, d), vocabulary = vectors.shape, len(readout)
    return n >= 2 * ROWS and d >= 256 and vocabulary >= 8192 and supported() and sound()


def candidates(k: int, d: int, vocabulary: int) -> int:
    """Candidates kept a side: as many as Gaussian logits have within the error of the k-th, plus 3
    standard deviations and a few."""
    if 2 * k >= vocabulary:
        return vocabulary
    normal = statistics.NormalDist()
    kth = -normal.inv_cdf(k / vocabulary)  # in standard deviations, as is the error
    # both roundings together lose about 0.0036 |x| |w|; sums and the output as in `rounding.py`
    error = math.sqrt(d) * (0.0036 + 2 * d * 2.0**-24) + UNIT * kth
    within = vocabulary * normal.cdf(error - kth)
    return min(math.ceil(within + 3.0 * math.sqrt(within) + 6.0), vocabulary)


class Slab(NamedTuple):
    """The tokens first, first + step, ... of the vocabulary, `width` of them."""

    first: int
    step: int
    width: int
    kept: int
    """Candidates worth keeping a side after this slab and those before it."""


def strided(vocabulary: int, kept: int) -> list[Slab]:
    """The slabs of a vocabulary: every step-th token, because its order is not random.

    So each slab is a fair sample. Of the best `kept` only a share lies in the first slabs, and they
    keep that share, plus 3 standard deviations and a few. A row with more than that in there ends
    with too few candidates, is not proven, and is searched again.
    """
    step = -(-vocabulary // COLUMNS)
    slabs = []
    for first in range(step):
        share = kept * (first + 1) / step
        worth = min(math.ceil(share + 3.0 * math.sqrt(share) + 4.0), kept)
        slabs.append(Slab(first, step, len(range(first, vocabulary, step)), worth))
    return slabs


class Screen:
    """Both operands made ready for screening: rounded, the read-out centred if that is tighter.

    `error`, `float32_error` [n] bound the errors of each row's logits, screened (without the
    rounding of the output) and in float32; `noise` [n] is the typical error of a screened one.
    """

    def __init__(self, operands: Operands, stats: bool) -> None:
        readout = operands.readout
        nothing = torch.zeros(readout.shape[1])
        self.x = round_to_bfloat16(operands.vectors, nothing, STEP, factor=operands.factor)
        # rows without a common part, or ones that bfloat16 holds exactly, are better left alone
        some = readout[:: max(len(readout) // SAMPLE, 1)].contiguous()
        shifts = (nothing, some.mean(0, dtype=torch.float64).float())
        bounds = [self._error(round_to_bfloat16(some, shift, 1)).sum() for shift in shifts]
        self.shift = shifts[int(np.argmin(bounds))]
        self.w = round_to_bfloat16(readout, self.shift, COLUMNS, len(strided(len(readout), 1)))
        self.error = self._error(self.w)
        longest = (self.w.lengths + self.w.losses).max() + float(self.shift.double().norm())
        lengths, d = self.x.lengths + self.x.losses, len(self.shift)
        self.float32_error = float32_error(lengths, longest, d)
        self.noise = lengths * np.median(self.w.losses) + self.x.losses * np.median(self.w.lengths)
        self.noise /= math.sqrt(d)
        self._moments = self._second_moments(some) if stats else None

    def _second_moments(self, some: Tensor) -> Tensor | None:
        """[d, d] second moments of the read-out up to a factor; None if the sample is small."""
        if len(some) < 2 * some.shape[1]:
            return None
        centred = some - self.shift
        # one row many times longer than others would decide for all
        lengths = centred.norm(dim=1)
        longest = LONG * lengths.median()
        centred = (centred * (longest / lengths.clamp_min(longest))[:, None]).bfloat16()
        moments = torch.empty(some.shape[1], some.shape[1], dtype=torch.bfloat16)

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
        x = self.x.values[rows]
        image = (x @ self._moments).float()  # to bfloat16's precision: only the small a needs it
        along, whole = (image * x).sum(1), (image * own).sum(1)
        return torch.where((along > 0) & (whole > 0), whole / along, 1.0).numpy()

    def _error(self, w: Rounded) -> np.ndarray:
        return screening_error(self.x, float(w.lengths.max()), float(w.losses.max()))


def project_screened(
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
    if not sound():
        raise ValueError("torch's bfloat16 products are too coarse on this machine: use 'tiled'")
    screen, results = Screen(operands, stats), Results(operands, k, sides)
    readout = operands.readout
    kept = candidates(k, readout.shape[1], len(readout))
    parts = [part.T for part in torch.split(screen.w.values, COLUMNS)]
    slabs = list(zip(strided(len(readout), kept), parts, strict=True))
    buffers, hopeless = Buffers(torch.bfloat16, COLUMNS), threading.Event()

    def block(rows: slice) -> None:
        if hopeless.is_set():
            return
        exact = operands.rows(rows)
        results.shrink[rows] = shrink = screen.shrink(exact, rows)
        exact = exact.double()
        results.shift[rows] = exact @ screen.shift.double()
        results.mean[rows] = exact @ screen.w.mean
        centre = ((results.mean[rows] - results.shift[rows]) / shrink).astype(np.float32)
        state, soft = new_state(centre, kept, results.sides), results.soft(rows)
        own = screen.x.values[rows.start : -(-rows.stop // STEP) * STEP]
        tile, bits = buffers.view(len(own), COLUMNS)
        for slab, part in slabs:
            torch.mm(own, part, out=tile)
            sizes = (slab.width, slab.first, slab.step)
            scan_bfloat16(bits, *sizes, soft, centre, *state, slab.kept, stats)
        everyone, error = np.ones(len(centre), np.bool_), (screen.error[rows], UNIT)
        single = screen.float32_error[rows]
        results.rescore(rows, state, kept, everyone, error, single, centre, stats)
        results.sums[rows] = state.sums
        if rows.start == 0 and results.share(rows) < min_certified:
            hopeless.set()

    each(block, starmap(slice, cut(len(operands.vectors))))
    if hopeless.is_set():
        return None
    return results.projection(
        stats, "screened", screen.noise, DOUBT, lambda few: project_tiled(few, 1, sides, True)
    )
