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
def _keep_bins(scores, bins_ptr, place, written, M: tl.constexpr):
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
def _power(t, s1, s2, s3, s4):
    """Add sums of t, t^2, t^3 and t^4."""
    t2 = t * t
    s1 += tl.sum(t, axis=1)
    s2 += tl.sum(t2, axis=1)
    s3 += tl.sum(t2 * t, axis=1)
    s4 += tl.sum(t2 * t2, axis=1)
    return s1, s2, s3, s4


@triton.jit
def _halves(x, M: tl.constexpr, N: tl.constexpr):
    """[M, N] -> its left and its right half of columns."""
    return tl.split(tl.permute(tl.reshape(x, (M, 2, N // 2)), (0, 2, 1)))


@triton.jit
def _parts(x, M: tl.constexpr, N: tl.constexpr):
    """[M, N] -> N / 64 pieces of 64 columns, left to right."""
    left, right = _halves(x, M, N)
    if N == 128:
        return left, right
    else:  # noqa: RET505 - triton compiles what follows a plain return
        a, b = _halves(left, M, 128)
        c, d = _halves(right, M, 128)
        return a, b, c, d


@triton.jit
def _keep(
    logits, rows, tile, centre_ptr, bins_ptr, sums_ptr, n, vocabulary, tiles,
    M: tl.constexpr, N: tl.constexpr, STATS: tl.constexpr,
):  # fmt: skip
    """Write what is kept of one tile of logits [M, N]; `rows` [M] are its rows.

    64 columns at a time: all copies of a whole tile would not fit the registers.
    """
    written = rows < n
    wide = rows.to(tl.int64)  # row counts times bins pass 2^31 at a few million rows
    bins = N // 32
    centre = tl.load(centre_ptr + rows, mask=written, other=0.0)
    none = tl.full((M,), -1e38, tl.float32)
    zero = tl.zeros((M,), tl.float32)
    top = (none, zero, zero)
    bottom = (none, zero, zero)
    power = (zero, zero, zero, zero)
    parts = _parts(logits, M, N)
    for at in tl.static_range(N // 64):
        part = parts[at]
        columns = tile * N + at * 64 + tl.arange(0, 64)
        real = (columns < vocabulary)[None, :]
        high = tl.where(real, part, -float("inf"))
        low = tl.where(real, -part, -float("inf"))
        place = (wide * (tiles * bins) + tile * bins + at * 2) * 4
        _keep_bins(high, bins_ptr, place, written, M)
        _keep_bins(low, bins_ptr, place + 2, written, M)
        if STATS:
            top = _soft(high, top[0], top[1], top[2])
            bottom = _soft(low, bottom[0], bottom[1], bottom[2])
            t = tl.where(real, part - centre[:, None], 0.0)
            power = _power(t, power[0], power[1], power[2], power[3])
    if STATS:
        to = sums_ptr + (wide * tiles + tile) * 10
        for i in tl.static_range(3):
            tl.store(to + i, top[i], mask=written)
            tl.store(to + 3 + i, bottom[i], mask=written)
        for i in tl.static_range(4):
            tl.store(to + 6 + i, power[i], mask=written)


@triton.jit
def scan_kernel(
    logits_ptr, centre_ptr, bins_ptr, sums_ptr, n, vocabulary, tiles, stride,
    M: tl.constexpr, N: tl.constexpr, STATS: tl.constexpr,
):  # fmt: skip
    """P1's second half: one pass over a buffer of logits [n, vocabulary]; grid (n / M, tiles)."""
    rows = tl.program_id(0) * M + tl.arange(0, M)
    tile = tl.program_id(1)
    columns = tile * N + tl.arange(0, N)
    inside = (rows < n)[:, None] & (columns < vocabulary)[None, :]
    places = rows.to(tl.int64)[:, None] * stride + columns[None, :]
    logits = tl.load(logits_ptr + places, mask=inside, other=0.0)
    _keep(logits, rows, tile, centre_ptr, bins_ptr, sums_ptr, n, vocabulary, tiles, M, N, STATS)


@triton.jit
def fused_kernel(
    x_ptr, w_ptr, centre_ptr, bins_ptr, sums_ptr, n, vocabulary, tiles, programs,
    D: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, BAND: tl.constexpr,
    STATS: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """P2: persistent programs that multiply tiles [M, N] of x [n, D] w [vocabulary, D]^T and keep
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
        w_own = tl.minimum(tl.arange(0, N), vocabulary - 1 - tile * N)
        x_at = x_ptr + block.to(tl.int64) * (M * D) + (x_own[:, None] * D + inner[None, :])
        w_at = w_ptr + tile.to(tl.int64) * (N * D) + (w_own[None, :] * D + inner[:, None])
        total = tl.zeros((M, N), dtype=tl.float32)
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
        _keep(total, rows, tile, centre_ptr, bins_ptr, sums_ptr, n, vocabulary, tiles, M, N, STATS)
        job += programs
