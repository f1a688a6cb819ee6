"""The best few of a row, kept while its logits stream past (numba, no GIL).

One row, both sides: `keys` [2, room] uint64 holds candidates of the top and the bottom side in no
order, `count` [2] their number, and `limit` [2] float32 a score that nothing left out lies above
(-inf: nothing was left out; inf: this side was not asked for). A score is the logit, negated on
the bottom side. A key holds the score's bits, made monotone, above the complement of the token id.
So the larger key is the better candidate, and of equal scores the lowest id wins. When there are
2 c candidates, they are cut back to about the best c, and the limit rises.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .lanes import LANES, any_outside, bits_as_float, float_bits, fmax, fmin, lowest_bit, outside

MATH = {"reassoc", "contract", "nsz", "arcp"}
"""Fast-math flags, without the one that rules out infinities.

Functions that sum with them and are called by others are `forceinline`d. Otherwise a process that
has just compiled the caller and one that reads it from numba's cache run different copies of them,
and the last digits differ.
"""


@njit(inline="always")  # type: ignore[untyped-decorator]
def pack(score, token):  # type: ignore[no-untyped-def]
    bits = np.int64(float_bits(score))
    if bits == -0x80000000:  # -0 is 0
        bits = np.int64(0)
    rank = (~bits if bits < 0 else bits | np.int64(0x80000000)) & np.int64(0xFFFFFFFF)
    return (np.uint64(rank) << np.uint64(32)) | np.uint64(0xFFFFFFFF - token)


@njit(inline="always")  # type: ignore[untyped-decorator]
def score_of(key):  # type: ignore[no-untyped-def]
    rank = np.int64(key >> np.uint64(32))
    bits = rank - np.int64(0x80000000) if rank >= 0x80000000 else ~rank
    return bits_as_float(np.int32(bits))  # type: ignore[call-arg]


@njit(inline="always")  # type: ignore[untyped-decorator]
def token_of(key):  # type: ignore[no-untyped-def]
    return np.int64(0xFFFFFFFF) - np.int64(key & np.uint64(0xFFFFFFFF))


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def keep_best(keys, count, c, most):  # type: ignore[no-untyped-def]
    """Move the best of keys[:count], c to `most` of them, to the front.

    Returns the cut, which no key left out lies above, and the number kept. Bisects on the cut:
    counting the keys above it takes a few vector instructions and no branch, which makes this
    several times faster than quickselect.
    """
    low, high = np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64(0)
    for i in range(count):
        low = min(low, keys[i])
        high = max(high, keys[i])
    while True:
        cut = low + (high - low) // np.uint64(2)
        above_cut = 0
        for i in range(count):
            above_cut += keys[i] > cut
        if above_cut < c:
            high = cut
        elif above_cut > most:
            low = cut + np.uint64(1)
        else:
            break
    kept = 0
    for i in range(count):
        key = keys[i]
        keys[kept] = key
        kept += key > cut
    return cut, kept


@njit(forceinline=True, fastmath=MATH)  # type: ignore[untyped-decorator]
def _first_limit(tile, at, width, sign, c):  # type: ignore[no-untyped-def]
    """A score that at least c of a row's scores exceed, and usually fewer than 2 c."""
    low = high = sign * tile[at, 0]
    for j in range(width):
        low = fmin(low, sign * tile[at, j])  # type: ignore[call-arg]
        high = fmax(high, sign * tile[at, j])  # type: ignore[call-arg]
    limit = np.float32(-np.inf)
    for _ in range(24):  # enough to halve the range down to float32's last place
        middle = np.float32(np.float32(0.5) * low + np.float32(0.5) * high)
        count = np.int32(0)
        for j in range(width):
            count += np.int32(sign * tile[at, j] > middle)
        if count < c:
            high = middle
        else:
            low = limit = middle
            if count < 2 * c:
                break
    return limit


@njit(forceinline=True)  # type: ignore[untyped-decorator]
def _gather(tile, at, start, mask, first, step, keys, count, limit, r, c):  # type: ignore[no-untyped-def]
    """Keep the columns start + (bits of `mask`); cut back to the best c where there are 2 c.

    The cost here is in branches that cannot be predicted. So every column is written to both sides,
    and counted only where it belongs.
    """
    low, high = -limit[r, 1], limit[r, 0]
    while mask:
        j = start + np.int64(lowest_bit(mask))  # type: ignore[call-arg]
        mask &= mask - np.uint64(1)
        logit, token = tile[at, j], first + j * step
        keys[r, 0, count[r, 0]] = pack(logit, token)
        keys[r, 1, count[r, 1]] = pack(-logit, token)
        count[r, 0] += np.int64(logit > high)
        count[r, 1] += np.int64(logit < low)
    for side in range(2):
        if count[r, side] >= 2 * c:
            cut, kept = keep_best(keys[r, side], count[r, side], c, c + c // 4)
            count[r, side], limit[r, side] = kept, score_of(cut)


@njit(forceinline=True)  # type: ignore[untyped-decorator]
def collect(tile, at, width, first, step, keys, count, limit, r, c):  # type: ignore[no-untyped-def]
    """Keep those of tile[at, :width], token ids first, first + step, ..., beyond row r's limits.

    Rows are passed by index, because a view of one costs two atomic operations.
    """
    if first == 0 and width >= 4 * c:  # saves the first tile many steps up from -inf
        if limit[r, 0] < np.inf:
            limit[r, 0] = _first_limit(tile, at, width, np.float32(1.0), c)
        if limit[r, 1] < np.inf:
            limit[r, 1] = _first_limit(tile, at, width, np.float32(-1.0), c)
    row, blocks = at * tile.shape[1], width // LANES
    low, high = -limit[r, 1], limit[r, 0]
    some = np.uint64(0)  # bit i: block i has some
    for i in range(blocks):
        place = row + i * LANES
        some |= np.uint64(any_outside(tile, place, low, high)) << np.uint64(i)  # type: ignore[call-arg]
    while some:
        start = np.int64(lowest_bit(some)) * LANES  # type: ignore[call-arg]
        some &= some - np.uint64(1)
        mask = outside(tile, row + start, low, high)  # type: ignore[call-arg]
        _gather(tile, at, start, mask, first, step, keys, count, limit, r, c)
    mask = np.uint64(0)
    for i in range(blocks * LANES, width):
        beyond = tile[at, i] < low or tile[at, i] > high
        mask |= np.uint64(beyond) << np.uint64(i - blocks * LANES)
    if mask:
        _gather(tile, at, blocks * LANES, mask, first, step, keys, count, limit, r, c)
