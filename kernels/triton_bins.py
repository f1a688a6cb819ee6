"""Triton: what is kept of a tile of logits, from a buffer (P1) or straight from the product (P2).

Of every row and bin of 32 columns the two highest and the two lowest logits, and of every row and
tile of columns its softmax sums for both signs and four power sums. No atomics and no locks: each
program writes its own places, so the result is deterministic.

A kept logit is an int32 that orders as the float does: the float's bits (negative ones turned
round), with the low 5 replaced by 31 - column within the bin. So the first of equal logits wins,
and a value that is unpacked is off by at most 2^-18 of itself (`UNPACKED`).

Arrays, row by row: bins int32 [n, bins, 4] (top, second, lowest, second lowest; the low side of
negated logits), sums float32 [n, tiles, 10] (max, sum e, sum e*y of the logits; the same of the
negated ones, y = score - max; sums of t, t^2, t^3, t^4, t = logit - centre).
"""

from __future__ import annotations

import triton
import triton.language as tl

BIN = 32
TILE = 128
"""Columns of a tile."""
SUMS = 10
UNPACKED = 2.0**-18
"""Largest relative error of an unpacked value."""


@triton.jit
def _packed(values, columns):
    """Ordered int32 keys of values [m, bins, 32]; `columns` [1, 1, 32] count within the bin."""
    bits = values.to(tl.int32, bitcast=True)
    ordered = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (ordered & -32) | (31 - columns)


@triton.jit
def _best_two(values, columns):
    """The two highest keys of each bin."""
    keys = _packed(values, columns)
    first = tl.max(keys, axis=2)
    lowest = -2147483648
    second = tl.max(tl.where(keys == first[:, :, None], lowest, keys), axis=2)
    return first, second


@triton.jit
def _keep_bins(scores, rows, bins_ptr, place, written, M: tl.constexpr):
    """Write the best two of the two bins of scores [M, 64]; `place` [M] is the first one's."""
    inside = tl.arange(0, 32)[None, None, :]
    first, second = _best_two(tl.reshape(scores, (M, 2, 32)), inside)
    at = bins_ptr + place[:, None] + 4 * tl.arange(0, 2)[None, :]
    tl.store(at, first, mask=written[:, None])
    tl.store(at + 1, second, mask=written[:, None])


@triton.jit
def _soft(scores, peak, total, weighted):
    """Fold exp(score - M) of a part into (M, sum e, sum e*y); scores at -inf count for nothing."""
    higher = tl.maximum(peak, tl.max(scores, axis=1))
    shift = tl.where(total > 0, peak - higher, 0.0)
    scale = tl.exp(shift)
    y = scores - higher[:, None]
    e = tl.exp(y)
    weighted = scale * (weighted + shift * total) + tl.sum(tl.where(e > 0, e * y, 0.0), axis=1)
    return higher, scale * total + tl.sum(e, axis=1), weighted


@triton.jit
def _keep(
    logits, rows, tile, centre_ptr, bins_ptr, sums_ptr, n, vocabulary, tiles,
    M: tl.constexpr, STATS: tl.constexpr,
):  # fmt: skip
    """Write what is kept of one tile of logits [M, 128]; `rows` [M] are its rows.

    Half of the columns at a time: all copies of a whole tile would not fit the registers.
    """
    left, right = tl.split(tl.permute(tl.reshape(logits, (M, 2, 64)), (0, 2, 1)))
    written = rows < n
    wide = rows.to(tl.int64)  # row counts times bins pass 2^31 at a few million rows
    centre = tl.load(centre_ptr + rows, mask=written, other=0.0)
    top_peak = tl.full((M,), -1e38, tl.float32)
    top_total = tl.zeros((M,), tl.float32)
    top_weighted = tl.zeros((M,), tl.float32)
    low_peak = tl.full((M,), -1e38, tl.float32)
    low_total = tl.zeros((M,), tl.float32)
    low_weighted = tl.zeros((M,), tl.float32)
    s1 = tl.zeros((M,), tl.float32)
    s2 = tl.zeros((M,), tl.float32)
    s3 = tl.zeros((M,), tl.float32)
    s4 = tl.zeros((M,), tl.float32)
    for half in tl.static_range(2):
        part = left if half == 0 else right
        columns = tile * 128 + half * 64 + tl.arange(0, 64)
        real = (columns < vocabulary)[None, :]
        high = tl.where(real, part, -float("inf"))
        low = tl.where(real, -part, -float("inf"))
        place = (wide * (tiles * 4) + tile * 4 + half * 2) * 4
        _keep_bins(high, rows, bins_ptr, place, written, M)
        _keep_bins(low, rows, bins_ptr, place + 2, written, M)
        if STATS:
            top_peak, top_total, top_weighted = _soft(high, top_peak, top_total, top_weighted)
            low_peak, low_total, low_weighted = _soft(low, low_peak, low_total, low_weighted)
            t = tl.where(real, part - centre[:, None], 0.0)
            t2 = t * t
            s1 += tl.sum(t, axis=1)
            s2 += tl.sum(t2, axis=1)
            s3 += tl.sum(t2 * t, axis=1)
            s4 += tl.sum(t2 * t2, axis=1)
    if STATS:
        at = sums_ptr + (wide * tiles + tile) * 10
        tl.store(at, top_peak, mask=written)
        tl.store(at + 1, top_total, mask=written)
        tl.store(at + 2, top_weighted, mask=written)
        tl.store(at + 3, low_peak, mask=written)
        tl.store(at + 4, low_total, mask=written)
        tl.store(at + 5, low_weighted, mask=written)
        tl.store(at + 6, s1, mask=written)
        tl.store(at + 7, s2, mask=written)
        tl.store(at + 8, s3, mask=written)
        tl.store(at + 9, s4, mask=written)


@triton.jit
def scan_kernel(
    logits_ptr, centre_ptr, bins_ptr, sums_ptr, n, vocabulary, tiles, stride,
    M: tl.constexpr, STATS: tl.constexpr,
):  # fmt: skip
    """P1's second half: one pass over a buffer of logits [n, vocabulary]; grid (n / M, tiles)."""
    rows = tl.program_id(0) * M + tl.arange(0, M)
    tile = tl.program_id(1)
    columns = tile * 128 + tl.arange(0, 128)
    inside = (rows < n)[:, None] & (columns < vocabulary)[None, :]
    places = rows.to(tl.int64)[:, None] * stride + columns[None, :]
    logits = tl.load(logits_ptr + places, mask=inside, other=0.0)
    _keep(logits, rows, tile, centre_ptr, bins_ptr, sums_ptr, n, vocabulary, tiles, M, STATS)


@triton.jit
def fused_kernel(
    x_ptr, w_ptr, centre_ptr, bins_ptr, sums_ptr, n, vocabulary, tiles, programs,
    D: tl.constexpr, M: tl.constexpr, K: tl.constexpr, BAND: tl.constexpr, STATS: tl.constexpr,
    UPCAST: tl.constexpr,
):  # fmt: skip
    """P2: persistent programs that multiply tiles [M, 128] of x [n, D] w [vocabulary, D]^T and keep
    of them what is worth keeping; no logit is written. Tiles run in bands of BAND row blocks, so
    that a band's rows and a few columns of w stay in the L2 cache.

    UPCAST: multiply in float32. Triton's interpreter multiplies the raw bits of bfloat16.
    """
    blocks = tl.cdiv(n, M)
    per_band = BAND * tiles
    job = tl.program_id(0)
    while job < blocks * tiles:
        first = (job // per_band) * BAND
        height = tl.minimum(blocks - first, BAND)
        block = first + (job % per_band) % height
        tile = (job % per_band) // height
        rows = block * M + tl.arange(0, M)
        inner = tl.arange(0, K)
        # 32-bit places from one base a tile: 64-bit ones would take most of the registers. Rows and
        # columns outside read the last one's values: they are left out when it is written.
        x_own = tl.minimum(tl.arange(0, M), n - 1 - block * M)
        w_own = tl.minimum(tl.arange(0, 128), vocabulary - 1 - tile * 128)
        x_at = x_ptr + block.to(tl.int64) * (M * D) + (x_own[:, None] * D + inner[None, :])
        w_at = w_ptr + tile.to(tl.int64) * (128 * D) + (w_own[None, :] * D + inner[:, None])
        total = tl.zeros((M, 128), dtype=tl.float32)
        for start in range(0, D, K):
            if D % K == 0:
                x, w = tl.load(x_at), tl.load(w_at)
            else:
                x = tl.load(x_at, mask=(inner < D - start)[None, :], other=0.0)
                w = tl.load(w_at, mask=(inner < D - start)[:, None], other=0.0)
            if UPCAST:
                total = tl.dot(x.to(tl.float32), w.to(tl.float32), total, input_precision="ieee")
            else:
                total = tl.dot(x, w, total)
            x_at += K
            w_at += K
        _keep(total, rows, tile, centre_ptr, bins_ptr, sums_ptr, n, vocabulary, tiles, M, STATS)
        job += programs
