"""Compiled inner loops of the CPU projections (numba, no GIL).

`scan_tile` reads one tile of logits while it is still in cache and folds it into the running
state of its rows. It never holds more than a tile. Equivalent naive code:

    L = X @ W.T
    L.topk(c), (-L).topk(c), L.logsumexp(1), (-L).logsumexp(1), L.mean(1), L.var(1), ...

State, one row a vector:
    keys   [n, 2, room] uint64, count [n, 2] int64, limit [n, 2] float32    see candidates.py
    sums   [n, 10] float64      of t, t^2, t^3, t^4 with t = logit - centre, and for each side its
                                reference M (a score), sum e, sum e*y, e = exp(y) and
                                y = soft (score - M), score = logit or -logit

A logit here is in the unit of the products (`scaling.py`), and `soft` brings a difference of two to
nats.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from .candidates import MATH, collect
from .lanes import LANES, any_outside, bits_as_float, float_bits, fmax, fmin, prefetch, rint

LOG2_E, LN_2 = np.float32(1.4426950408889634), 0.6931471805599453

AHEAD = 2
"""How many rows ahead the state is prefetched."""
TOP, BOTTOM = 4, 7
"""Where a side's (M, sum e, sum e*y) begin in `sums`."""
NEAR = 60.0
"""Logits closer than this to their row's centre need no other reference in exp (e^60 = 1e26)."""
BELOW = 32.0
"""Scores further than this under a row's highest do not count (V e^-32 = 2e-9 for V = 128,256)."""
FOURTH = np.float32(1e-24), np.float32(1e24)
"""Between these, a sum of t^4 and those of lower powers have lost nothing to float32's range."""
LEAST = np.float32(1e-36)
"""Rows closer than this to their centre are at it: their largest product is near 1."""


@njit(inline="always")  # type: ignore[untyped-decorator]
def _exp2_both(u):  # type: ignore[no-untyped-def]
    """2^u and 2^-u in float32 for |u| <= 126, relative error below 3e-7.

    2^n goes into the exponent bits; 2^f and 2^-f, |f| <= 1/2, share the even and odd halves of one
    degree 5 minimax polynomial (9e-8).
    """
    n = rint(u)  # type: ignore[call-arg]
    f = u - n
    g = f * f
    even = (np.float32(0.009671513) * g + np.float32(0.24022242)) * g + np.float32(1.0)
    odd = np.float32(0.0013264728) * g + np.float32(0.055507337)
    odd = (odd * g + np.float32(0.693146978)) * f
    shift = np.int32(np.int32(n) << np.int32(23))
    up = bits_as_float(np.int32(float_bits(even + odd) + shift))  # type: ignore[call-arg]
    down = bits_as_float(np.int32(float_bits(even - odd) - shift))  # type: ignore[call-arg]
    return up, down


@njit(forceinline=True, fastmath=MATH)  # type: ignore[untyped-decorator]
def _add_some(tile, at, start, stop, sign, soft, sums, r, side):  # type: ignore[no-untyped-def]
    """Fold exp(y) of some columns into the softmax sums of one side."""
    total = weighted = np.float32(0.0)
    reference = np.float32(sums[r, side])
    for j in range(start, stop):
        # the difference first: of close scores it is exact, whatever their size
        y = fmax(soft * (sign * tile[at, j] - reference), np.float32(-87.0))  # type: ignore[call-arg]
        e, _ = _exp2_both(LOG2_E * y)
        total += e
        weighted += e * y
    sums[r, side + 1] += total
    sums[r, side + 2] += weighted


@njit(inline="always")  # type: ignore[untyped-decorator]
def move_reference(sums, r, side, peak, soft):  # type: ignore[no-untyped-def]
    """Raise the M of a side of row r's sums to `peak`, if that is higher."""
    if peak > sums[r, side]:
        shift = soft * (sums[r, side] - peak)
        if sums[r, side + 1] > 0.0:
            shrink = np.exp(shift)
            sums[r, side + 2] = shrink * (sums[r, side + 2] + shift * sums[r, side + 1])
            sums[r, side + 1] *= shrink
        sums[r, side] = peak


@njit(forceinline=True)  # type: ignore[untyped-decorator]
def _add_far(tile, at, width, sign, soft, peak, sums, r, side):  # type: ignore[no-untyped-def]
    """Fold exp(y) into (M, sum e, sum e*y), moving M up to `peak` first if it is higher.

    Stretches of scores further than BELOW under M are passed over: what they add is below
    float32's precision.
    """
    move_reference(sums, r, side, np.float64(peak), np.float64(soft))
    whole = width // LANES * LANES
    # at least a few of float32's last places, so that M itself is beyond the limit
    depth = max(BELOW / np.float64(soft), 2.0**-21 * abs(sums[r, side]))
    limit = np.float32(sums[r, side] - depth)
    low, high = (np.float32(-np.inf), limit) if sign > 0 else (-limit, np.float32(np.inf))
    for start in range(0, whole, LANES):
        place = at * tile.shape[1] + start
        if any_outside(tile, place, low, high):  # type: ignore[call-arg]
            _add_some(tile, at, start, start + LANES, sign, soft, sums, r, side)
    _add_some(tile, at, whole, width, sign, soft, sums, r, side)


@njit(forceinline=True, fastmath=MATH)  # type: ignore[untyped-decorator]
def _power_sums(tile, at, width, centre, factor):  # type: ignore[no-untyped-def]
    s1 = s2 = s3 = s4 = np.float32(0.0)
    for j in range(width):
        t = factor * (tile[at, j] - centre)
        t2 = t * t
        s1 += t
        s2 += t2
        s3 += t2 * t
        s4 += t2 * t2
    return s1, s2, s3, s4


@njit(forceinline=True, fastmath=MATH)  # type: ignore[untyped-decorator]
def _extremes(tile, at, width):  # type: ignore[no-untyped-def]
    high = low = tile[at, 0]
    for j in range(width):
        high = fmax(high, tile[at, j])  # type: ignore[call-arg]
        low = fmin(low, tile[at, j])  # type: ignore[call-arg]
    return high, low


@njit(forceinline=True)  # type: ignore[untyped-decorator]
def _add_powers(tile, at, width, centre, sums, r):  # type: ignore[no-untyped-def]
    """Fold a row into its power sums; the sum of its t^4."""
    size = 1.0
    s1, s2, s3, s4 = _power_sums(tile, at, width, centre, np.float32(1.0))
    if not FOURTH[0] < s4 < FOURTH[1]:  # take powers of t over about max |t| instead
        high, low = _extremes(tile, at, width)
        largest = max(high - centre, centre - low)
        if largest < LEAST:
            return 0.0
        # a power of two, so that no digit changes
        size = math.ldexp(1.0, min(math.frexp(largest)[1], 126))
        s1, s2, s3, s4 = _power_sums(tile, at, width, centre, np.float32(1.0 / size))
    sums[r, 0] += size * s1
    sums[r, 1] += size**2 * s2
    sums[r, 2] += size**3 * s3
    fourth = size**4 * s4
    sums[r, 3] += fourth
    return fourth


@njit(forceinline=True, fastmath=MATH)  # type: ignore[untyped-decorator]
def _add_near(tile, at, width, soft, centre, sums, r):  # type: ignore[no-untyped-def]
    """Fold exp(y) into the softmax sums of both sides, both with the centre for reference."""
    up = up_u = down = down_u = np.float32(0.0)
    factor = LOG2_E * soft
    for j in range(width):
        u = factor * (tile[at, j] - centre)
        e, inverse = _exp2_both(u)
        up += e
        up_u += e * u
        down += inverse
        down_u -= inverse * u
    sums[r, TOP + 1] += up
    sums[r, TOP + 2] += LN_2 * up_u
    sums[r, BOTTOM + 1] += down
    sums[r, BOTTOM + 2] += LN_2 * down_u


@njit(forceinline=True)  # type: ignore[untyped-decorator]
def _add_sums(tile, at, width, soft, centre, sums, r):  # type: ignore[no-untyped-def]
    """Fold tile[at, :width] into row r's power and softmax sums."""
    fourth = _add_powers(tile, at, width, centre, sums, r)
    unmoved = sums[r, TOP] == -sums[r, BOTTOM]
    if unmoved and np.float64(soft) ** 4 * fourth < NEAR**4:  # then so is every |y|
        _add_near(tile, at, width, soft, centre, sums, r)
        return
    high, low = _extremes(tile, at, width)
    if unmoved and soft * (high - centre) < NEAR and soft * (centre - low) < NEAR:
        _add_near(tile, at, width, soft, centre, sums, r)
    else:
        _add_far(tile, at, width, np.float32(1.0), soft, high, sums, r, TOP)
        _add_far(tile, at, width, np.float32(-1.0), soft, -low, sums, r, BOTTOM)


@njit(inline="always")  # type: ignore[untyped-decorator]
def _fetch(keys, count, sums, r):  # type: ignore[no-untyped-def]
    """Prefetch the state of a coming row, which may have left the cache since the last tile."""
    if r < count.shape[0]:
        room = keys.shape[2]
        prefetch(keys, 2 * r * room + count[r, 0])  # type: ignore[call-arg]
        prefetch(keys, (2 * r + 1) * room + count[r, 1])  # type: ignore[call-arg]
        prefetch(sums, r * sums.shape[1])  # type: ignore[call-arg]
        prefetch(sums, r * sums.shape[1] + 8)  # type: ignore[call-arg]


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def scan_tile(  # type: ignore[no-untyped-def]
    tile, width, first, step, soft, centre, keys, count, limit, sums, c, stats
):
    """Fold tile[:n, :width] of logits for token ids first, first + step, ... into the state.

    For the sums, `centre` [n] is taken off each row's logits, so that third and fourth moments do
    not cancel. It is also the first reference of exp. About `c` candidates a side are kept.
    """
    for r in range(centre.shape[0]):
        _fetch(keys, count, sums, r + AHEAD)
        if stats:
            _add_sums(tile, r, width, soft[r], centre[r], sums, r)
        collect(tile, r, width, first, step, keys, count, limit, r, c)


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def scan_bfloat16(  # type: ignore[no-untyped-def]
    tile, width, first, step, soft, centre, keys, count, limit, sums, c, stats
):
    """`scan_tile` for a tile of bfloat16 given as int16: a row at a time is widened in cache."""
    row = np.empty((1, tile.shape[1]), np.float32)
    for r in range(centre.shape[0]):
        _fetch(keys, count, sums, r + AHEAD)
        for j in range(width):
            row[0, j] = bits_as_float(np.int32(np.int32(tile[r, j]) << np.int32(16)))  # type: ignore[call-arg]
        if stats:
            _add_sums(row, 0, width, soft[r], centre[r], sums, r)
        collect(row, 0, width, first, step, keys, count, limit, r, c)


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def scan_int32(  # type: ignore[no-untyped-def]
    tile, rows, columns, width, first, step, soft, centre, keys, count, limit, sums, c, stats
):
    """`scan_tile` for a tile of int32 that are to be multiplied with the scales `rows` [n] and
    `columns` [width]."""
    row = np.empty((1, tile.shape[1]), np.float32)
    for r in range(centre.shape[0]):
        _fetch(keys, count, sums, r + AHEAD)
        for j in range(width):
            row[0, j] = rows[r] * (columns[j] * np.float32(tile[r, j]))
        if stats:
            _add_sums(row, 0, width, soft[r], centre[r], sums, r)
        collect(row, 0, width, first, step, keys, count, limit, r, c)
