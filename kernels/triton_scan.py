"""Triton: one pass over float32 logits, which keeps the extremes of bins and the statistics.

A bin is 32 columns that one thread reads: 8 runs of 4, 128 columns apart. So a bin's extremes need
no exchange between threads, and most of its members are not neighbours in the vocabulary, which
tend to be alike. Column i of bin b is, in tiles of 1,024 columns with 32 bins,

    1024 (b // 32) + 128 (i // 4) + 4 (b % 32) + i % 4

No atomics and no locks: each program writes its own places, so the result is deterministic.

Arrays, row by row: bins float32 [n, 2, bins] (highest logit; highest negated logit), sums float32
[n, tiles, 10] (largest logit and largest negated one; then of each sum e and sum e y, e = 2^y,
y = soft (score - largest) log2 e; then the sums of t, t^2, t^3 and t^4 with t = (logit - centre) /
size, size the largest |logit - centre| of the tile). A logit here is in the unit of the products
(`scaling.py`), and `soft` brings a difference of two to nats.
"""

from __future__ import annotations

import triton
import triton.language as tl

RUNS, WIDTH, RUN = 8, 128, 4
"""Runs of a bin, columns from one to the next, columns of a run."""
TILE, PER_TILE = RUNS * WIDTH, WIDTH // RUN
"""Columns and bins of a tile."""
SUMS = 10
OPTIONS = {"num_warps": 1}
LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _size(highest, lowest, centre):
    """The largest |logit - centre| of a tile, or a little; more than 0."""
    return tl.maximum(tl.maximum(highest - centre, lowest + centre), 1e-30)


@triton.jit
def _soft(scores, largest, soft, MASKED: tl.constexpr):
    """sum e and sum e y of scores; those at -inf count for nothing."""
    # the difference first: of close scores it is exact, whatever their size
    y = (scores - largest) * (LOG2E * soft)
    e = tl.exp2(y)
    if MASKED:
        y = tl.maximum(y, -1000.0)  # because 0 times -inf is NaN
    return tl.sum(tl.sum(e, axis=0), axis=0), tl.sum(tl.sum(e * y, axis=0), axis=0)


@triton.jit
def _keep(
    at, inside, read, bins_ptr, sums_ptr, centre, soft, per_side,
    WIDTH: tl.constexpr, RUN: tl.constexpr, STATS: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Write what is kept of the logits [RUNS, WIDTH] of one row that `at` points to."""
    if MASKED:
        x = tl.load(at, mask=read, other=0.0)
        high = tl.where(inside, x, -float("inf"))
        low = tl.where(inside, -x, -float("inf"))
        t = tl.where(inside, x - centre, 0.0)
    else:
        x = tl.load(at)
        high, low, t = x, -x, x - centre
    bins = tl.arange(0, WIDTH // RUN)
    top = tl.max(tl.reshape(tl.max(high, axis=0), (WIDTH // RUN, RUN)), axis=1)
    bottom = tl.max(tl.reshape(tl.max(low, axis=0), (WIDTH // RUN, RUN)), axis=1)
    tl.store(bins_ptr + bins, top)
    tl.store(bins_ptr + per_side + bins, bottom)
    if STATS:
        highest = tl.maximum(tl.max(top, axis=0), -1e37)
        lowest = tl.maximum(tl.max(bottom, axis=0), -1e37)
        tl.store(sums_ptr, highest)
        tl.store(sums_ptr + 1, lowest)
        total, weighted = _soft(high, highest, soft, MASKED)
        tl.store(sums_ptr + 2, total)
        tl.store(sums_ptr + 3, weighted)
        total, weighted = _soft(low, lowest, soft, MASKED)
        tl.store(sums_ptr + 4, total)
        tl.store(sums_ptr + 5, weighted)
        t = t * (1.0 / _size(highest, lowest, centre))
        t2 = t * t
        tl.store(sums_ptr + 6, tl.sum(tl.sum(t, axis=0), axis=0))
        tl.store(sums_ptr + 7, tl.sum(tl.sum(t2, axis=0), axis=0))
        tl.store(sums_ptr + 8, tl.sum(tl.sum(t2 * t, axis=0), axis=0))
        tl.store(sums_ptr + 9, tl.sum(tl.sum(t2 * t2, axis=0), axis=0))


@triton.jit
def scan_kernel(
    logits_ptr, centre_ptr, soft_ptr, bins_ptr, sums_ptr, vocabulary, stride, tiles,
    RUNS: tl.constexpr, WIDTH: tl.constexpr, RUN: tl.constexpr, STATS: tl.constexpr,
):  # fmt: skip
    """Grid (n, tiles): one tile of one row of logits [n, stride]."""
    row = tl.program_id(0).to(tl.int64)
    tile = tl.program_id(1)
    columns = tile * (RUNS * WIDTH)
    columns += tl.arange(0, RUNS)[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
    at = logits_ptr + row * stride + columns
    per_side = tiles * (WIDTH // RUN)
    bins = bins_ptr + row * 2 * per_side + tile * (WIDTH // RUN)
    sums = sums_ptr + (row * tiles + tile) * 10
    centre = tl.load(centre_ptr + row)
    soft = tl.load(soft_ptr + row)
    if (tile + 1) * (RUNS * WIDTH) <= vocabulary:
        _keep(at, None, None, bins, sums, centre, soft, per_side, WIDTH, RUN, STATS, False)
    else:
        inside, read = columns < vocabulary, columns < stride
        _keep(at, inside, read, bins, sums, centre, soft, per_side, WIDTH, RUN, STATS, True)


@triton.jit
def merge_kernel(sums_ptr, centre_ptr, soft_ptr, merged_ptr, tiles, TILES: tl.constexpr):
    """merged float64 [n, 10]: the sums of all tiles of a row, with e about the largest logit of the
    row instead of the tile, and t without the size. TILES: a power of 2, at least `tiles`."""
    row = tl.program_id(0).to(tl.int64)
    tile = tl.arange(0, TILES)
    real = tile < tiles
    at = sums_ptr + (row * tiles + tile) * 10
    to = merged_ptr + row * 10
    for side in tl.static_range(2):
        peaks = tl.load(at + side, mask=real, other=-1e37).to(tl.float64)
        total = tl.load(at + 2 + 2 * side, mask=real, other=0.0).to(tl.float64)
        weighted = tl.load(at + 3 + 2 * side, mask=real, other=0.0).to(tl.float64)
        largest = tl.max(peaks, axis=0)
        shift = (peaks - largest) * 1.4426950408889634 * tl.load(soft_ptr + row)
        scale = tl.exp2(tl.maximum(shift, -1000.0))
        tl.store(to + side, largest)
        tl.store(to + 2 + 2 * side, tl.sum(scale * total, axis=0))
        moved = tl.where(scale > 0, scale * (weighted + shift * total), 0.0)
        tl.store(to + 3 + 2 * side, tl.sum(moved, axis=0))
    highest = tl.load(at, mask=real, other=0.0)
    lowest = tl.load(at + 1, mask=real, other=0.0)
    size = _size(highest, lowest, tl.load(centre_ptr + row)).to(tl.float64)
    factor = size
    for power in tl.static_range(4):
        sums = tl.load(at + 6 + power, mask=real, other=0.0).to(tl.float64)
        tl.store(to + 6 + power, tl.sum(factor * sums, axis=0))
        factor *= size


@triton.jit
def _terms(value, peak, other_peak, centre, soft, used):
    """What a logit adds to each of a row's sums, in float64."""
    y = (value - peak) * 1.4426950408889634 * soft
    z = (-value - other_peak) * 1.4426950408889634 * soft
    e = tl.where(used, tl.exp2(tl.maximum(y, -1000.0)), 0.0)
    f = tl.where(used, tl.exp2(tl.maximum(z, -1000.0)), 0.0)
    t = tl.where(used, value - centre, 0.0)
    return e, e * y, f, f * z, t, t * t, t * t * t, t * t * t * t


@triton.jit
def _raise(at, side: tl.constexpr, peak, best, soft, wanted):
    """Write and return the largest score of a side's sums: `best`, if that is wanted and higher
    than `peak`, which they have."""
    new = tl.where(wanted, tl.maximum(peak, best), peak)
    shift = (peak - new) * 1.4426950408889634 * soft
    scale = tl.exp2(tl.maximum(shift, -1000.0))
    total, weighted = tl.load(at + 2 + 2 * side), tl.load(at + 3 + 2 * side)
    tl.store(at + side, new)
    tl.store(at + 2 + 2 * side, scale * total)
    tl.store(at + 3 + 2 * side, scale * (weighted + tl.maximum(shift, -1000.0) * total))
    return new


@triton.jit
def correct_kernel(
    logits_ptr, levels_ptr, ids_ptr, count_ptr, scores_ptr, best_ptr, mean_ptr, centre_ptr,
    soft_ptr, error_ptr, merged_ptr, vocabulary, stride, first_side, sides, room, least,
    PART: tl.constexpr,
):  # fmt: skip
    """Correct a row's merged sums for what bfloat16 took from its operands, and float32 from large
    logits: move all logits so that their mean is exact, then put the candidates' exact scores in
    place of theirs. Heavy tails and concentrated probability are in the candidates. Rows whose
    error is below `least` nats are left as they are."""
    row = tl.program_id(0).to(tl.int64)
    soft = tl.load(soft_ptr + row).to(tl.float64)
    coarse = tl.load(error_ptr + row) * soft >= least
    at = merged_ptr + row * 10
    centre = tl.load(centre_ptr + row).to(tl.float64)
    moved = tl.load(mean_ptr + row) - (centre + tl.load(at + 6) / vocabulary)
    moved = tl.where(coarse, moved, 0.0)
    centre += moved  # so the powers stay as they are
    known = row * 2
    top = (first_side == 0) & coarse
    bottom = (first_side + sides == 2) & coarse
    # exact scores may be far above the screened ones
    peak = _raise(at, 0, tl.load(at) + moved, tl.load(best_ptr + known), soft, top)
    other_peak = _raise(at, 1, tl.load(at + 1) - moved, tl.load(best_ptr + known + 1), soft, bottom)
    level = float("inf")
    for number in range(2):
        side = first_side + number
        place = row * 2 + side
        count = tl.load(count_ptr + place, mask=number < sides, other=0)
        # or the list is incomplete
        count = tl.where((count > room) | ~coarse, 0, count)
        start = 0
        while start < count:
            own = start + tl.arange(0, PART)
            ids = tl.load(ids_ptr + place * room + own, mask=own < count, other=0)
            exact = tl.load(scores_ptr + place * room + own, mask=own < count, other=0.0)
            exact = tl.where(side == 0, exact, -exact)
            screened = tl.load(logits_ptr + row * stride + ids, mask=own < count, other=0.0)
            used = (own < count) & (screened < level)  # once, if it is among both sides'
            new = _terms(exact, peak, other_peak, centre, soft, used)
            old = _terms(screened.to(tl.float64) + moved, peak, other_peak, centre, soft, used)
            for i in tl.static_range(8):
                change = tl.sum(new[i] - old[i], axis=0)
                tl.store(at + 2 + i, tl.load(at + 2 + i) + change)
            start += PART
        level = tl.where(count > 0, tl.load(levels_ptr + place, mask=number < sides), level)
