"""Compiled inner loops of the CPU projections (numba, no GIL).

`scan_tile` reads one tile of logits while it is still in cache and folds it into the running
state of its rows. It is equivalent to, but never holds more than a tile of,

    L = X @ W.T
    L.topk(c), (-L).topk(c), L.logsumexp(1), (-L).logsumexp(1), L.mean(1), L.var(1), ...

State, one row a vector:
    keys   [n, 2, cap] uint64, count [n, 2] int64, limit [n, 2] float32    see candidates.py
    sums   [n, 10] float64      of t, t^2, t^3, t^4 with t = logit - centre, and for each side
                                reference M, sum e, sum e*y with y = score - M, e = exp(y)
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .candidates import MATH, collect
from .lanes import LANES, above, below, bits_as_float, float_bits, fmax, fmin, prefetch, rint

AHEAD = 2
"""Rows whose state is asked for before it is needed."""
NEAR = np.float32(60.0)
"""Logits closer than this to their row's centre need no other reference in exp (e^60 = 1e26)."""
BELOW = np.float32(32.0)
"""Scores further than this under a row's highest do not count (V e^-32 = 2e-9 for V = 128,256)."""


@njit(inline="always")  # type: ignore[untyped-decorator]
def _exp_both(t):  # type: ignore[no-untyped-def]
    """exp(t) and exp(-t) in float32 for |t| <= 87, relative error below 3e-7.

    2^n goes into the exponent bits; 2^f and 2^-f, |f| <= 1/2, share the even and odd halves of one
    degree 6 minimax polynomial (2e-9).
    """
    u = t * np.float32(1.4426950408889634)
    n = rint(u)  # type: ignore[call-arg]
    f = u - n
    g = f * f
    even = np.float32(0.00015353362013449909) * g + np.float32(0.009618437357590826)
    even = (even * g + np.float32(0.2402264791362784)) * g + np.float32(1.0)
    odd = np.float32(0.0013398874453037896) * g + np.float32(0.05550332471040365)
    odd = (odd * g + np.float32(0.693147202855097)) * f
    shift = np.int32(np.int32(n) << np.int32(23))
    up = bits_as_float(np.int32(float_bits(even + odd) + shift))  # type: ignore[call-arg]
    down = bits_as_float(np.int32(float_bits(even - odd) - shift))  # type: ignore[call-arg]
    return up, down


@njit(forceinline=True, fastmath=MATH)  # type: ignore[untyped-decorator]
def _add_some(row, scale, reference, soft):  # type: ignore[no-untyped-def]
    """Fold exp(scale * row - M), M = `reference`, into the softmax sums of one side."""
    total = weighted = np.float32(0.0)
    for j in range(row.shape[0]):
        y = fmax(scale * row[j] - reference, np.float32(-87.0))  # type: ignore[call-arg]
        e, _ = _exp_both(y)
        total += e
        weighted += e * y
    soft[1] += total
    soft[2] += weighted


@njit(forceinline=True)  # type: ignore[untyped-decorator]
def _add_far(row, scale, peak, soft):  # type: ignore[no-untyped-def]
    """Fold exp(score - M) into (M, sum e, sum e*y), moving M up to `peak` first if it is higher.

    Stretches of scores further than BELOW under M are passed over: float32 could not hold what
    they add.
    """
    if peak > soft[0]:
        shift = soft[0] - peak
        if soft[1] > 0.0:
            shrink = np.exp(shift)
            soft[2] = shrink * (soft[2] + shift * soft[1])
            soft[1] = shrink * soft[1]
        soft[0] = peak
    reference = np.float32(soft[0])
    whole = row.shape[0] // LANES * LANES
    limit = np.float32((reference - BELOW) / scale)
    for start in range(0, whole, LANES):
        mask = above(row, start, limit) if scale > 0 else below(row, start, limit)  # type: ignore[call-arg]
        if mask:
            _add_some(row[start : start + LANES], scale, reference, soft)
    _add_some(row[whole:], scale, reference, soft)


@njit(forceinline=True, fastmath=MATH)  # type: ignore[untyped-decorator]
def _add_powers(row, scale, centre, sums):  # type: ignore[no-untyped-def]
    """Fold a row into its power sums; its highest and lowest logit."""
    high = low = row[0]
    s1 = s2 = s3 = s4 = np.float32(0.0)
    for j in range(row.shape[0]):
        v = row[j]
        high = fmax(high, v)  # type: ignore[call-arg]
        low = fmin(low, v)  # type: ignore[call-arg]
        t = scale * v - centre
        t2 = t * t
        s1 += t
        s2 += t2
        s3 += t2 * t
        s4 += t2 * t2
    sums[0] += s1
    sums[1] += s2
    sums[2] += s3
    sums[3] += s4
    return high, low


@njit(forceinline=True, fastmath=MATH)  # type: ignore[untyped-decorator]
def _add_near(row, scale, centre, sums):  # type: ignore[no-untyped-def]
    """Fold exp(t) and exp(-t) into the softmax sums, both with the centre for reference."""
    up = up_t = down = down_t = np.float32(0.0)
    for j in range(row.shape[0]):
        t = scale * row[j] - centre
        e, inverse = _exp_both(t)
        up += e
        up_t += e * t
        down += inverse
        down_t -= inverse * t
    sums[5] += up
    sums[6] += up_t
    sums[8] += down
    sums[9] += down_t


@njit(forceinline=True)  # type: ignore[untyped-decorator]
def _add_sums(row, scale, centre, sums):  # type: ignore[no-untyped-def]
    """Fold one row of a tile into its power and softmax sums; its highest and lowest logit."""
    high, low = _add_powers(row, scale, centre, sums)
    unmoved = sums[4] == centre and sums[7] == -centre
    if unmoved and scale * high - centre < NEAR and centre - scale * low < NEAR:
        _add_near(row, scale, centre, sums)
    else:
        _add_far(row, scale, scale * high, sums[4:7])
        _add_far(row, -scale, -scale * low, sums[7:10])
    return high, low


@njit(inline="always")  # type: ignore[untyped-decorator]
def _fetch(keys, count, sums, r):  # type: ignore[no-untyped-def]
    """Ask for the state of a row to come: since the last tile it may have left the cache."""
    if r < keys.shape[0]:
        prefetch(keys[r, 0], count[r, 0])  # type: ignore[call-arg]
        prefetch(keys[r, 1], count[r, 1])  # type: ignore[call-arg]
        prefetch(sums[r], 0)  # type: ignore[call-arg]
        prefetch(sums[r], 8)  # type: ignore[call-arg]


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def scan_tile(  # type: ignore[no-untyped-def]
    tile, first, scale, centre, keys, count, limit, sums, c, top, bottom, stats
):
    """Fold `tile` [n, width] of logits for token ids `first, first+1, ...` into the state.

    For the sums, `scale` [n] multiplies each row's logits and `centre` [n] is subtracted before
    the powers are summed, so that third and fourth moments do not cancel; it is also the first
    reference of exp. About `c` candidates a side are kept.
    """
    for r in range(tile.shape[0]):
        row = tile[r]
        _fetch(keys, count, sums, r + AHEAD)
        high, low = np.float32(np.inf), np.float32(-np.inf)
        if stats:
            high, low = _add_sums(row, scale[r], centre[r], sums[r])
        if (top and high > limit[r, 0]) or (bottom and -low > limit[r, 1]):
            collect(row, first, keys[r], count[r], limit[r], c, top, bottom)


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def scan_bfloat16(  # type: ignore[no-untyped-def]
    tile, first, scale, centre, keys, count, limit, sums, c, top, bottom, stats
):
    """`scan_tile` for a tile of bfloat16 given as int16: a row at a time is widened in cache."""
    row = np.empty(tile.shape[1], np.float32)
    for r in range(tile.shape[0]):
        narrow = tile[r]
        _fetch(keys, count, sums, r + AHEAD)
        for j in range(row.shape[0]):
            row[j] = bits_as_float(np.int32(np.int32(narrow[j]) << np.int32(16)))  # type: ignore[call-arg]
        high, low = np.float32(np.inf), np.float32(-np.inf)
        if stats:
            high, low = _add_sums(row, scale[r], centre[r], sums[r])
        if (top and high > limit[r, 0]) or (bottom and -low > limit[r, 1]):
            collect(row, first, keys[r], count[r], limit[r], c, top, bottom)
