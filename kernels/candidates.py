"""The best few of a row, kept while its logits stream past (numba, no GIL).

One row, both sides: `keys` [2, cap] uint64 holds candidates of the top and the bottom side in no
order, `count` [2] how many there are, and `limit` [2] float32 a score that nothing left out lies
above (-inf: nothing was left out). A score is the logit, negated on the bottom side. A key holds
the score's bits, made monotone, above the complement of the token id: the larger key is the better
candidate, and equal scores go by the lowest id. When `cap` candidates are there they are cut back
to about the best c, and the limit rises.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .lanes import LANES, above, below, bits_as_float, float_bits, fmax, fmin, lowest_bit

MATH = {"reassoc", "contract", "nsz", "arcp"}
"""Fast-math without the licence to assume that there are no infinities.

Functions that sum with it and are called by others are `forceinline`d: otherwise a process that
has just compiled the caller runs another copy of them than one that reads the caller from numba's
cache, and the last digits differ.
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
    """Move the best c to `most` of keys[:count] to the front; the cut between them and the rest.

    Bisects on the value of the key. Counting what lies above it takes a few vector instructions
    and no branch, which makes it several times faster than quickselect.
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


@njit(inline="always")  # type: ignore[untyped-decorator]
def _add(keys, count, limit, side, c, score, token):  # type: ignore[no-untyped-def]
    """Keep a candidate; if that fills the room, cut back to the best and raise the limit."""
    keys[side, count[side]] = pack(score, token)
    count[side] += 1
    if count[side] == keys.shape[1]:
        cut, kept = keep_best(keys[side], count[side], c, c + c // 4)
        count[side] = kept
        limit[side] = score_of(cut)


@njit(forceinline=True, fastmath=MATH)  # type: ignore[untyped-decorator]
def _first_limit(row, sign, c):  # type: ignore[no-untyped-def]
    """A score that at least c, and as a rule fewer than 2 c, of a row's scores lie above."""
    low = high = sign * row[0]
    for j in range(row.shape[0]):
        low = fmin(low, sign * row[j])  # type: ignore[call-arg]
        high = fmax(high, sign * row[j])  # type: ignore[call-arg]
    limit = np.float32(-np.inf)
    for _ in range(24):  # enough to halve the range down to float32's last place
        middle = np.float32(np.float32(0.5) * low + np.float32(0.5) * high)
        count = 0
        for j in range(row.shape[0]):
            count += sign * row[j] > middle
        if count < c:
            high = middle
        else:
            low = limit = middle
            if count < 2 * c:
                break
    return limit


@njit(inline="always")  # type: ignore[untyped-decorator]
def collect(row, first, keys, count, limit, c, top, bottom):  # type: ignore[no-untyped-def]
    """Keep every column of `row` that is beyond its side's limit."""
    if first == 0 and row.shape[0] >= 4 * c:  # spare the first tile a walk up from -inf
        if top:
            limit[0] = _first_limit(row, np.float32(1.0), c)
        if bottom:
            limit[1] = _first_limit(row, np.float32(-1.0), c)
    whole = row.shape[0] // LANES * LANES
    for start in range(0, whole, LANES):
        if top:
            mask = above(row, start, limit[0])  # type: ignore[call-arg]
            while mask:
                j = np.int64(start + np.int64(lowest_bit(mask)))  # type: ignore[call-arg]
                mask &= mask - np.uint64(1)
                if row[j] > limit[0]:  # it may have risen since
                    _add(keys, count, limit, 0, c, row[j], first + j)
        if bottom:
            mask = below(row, start, -limit[1])  # type: ignore[call-arg]
            while mask:
                j = np.int64(start + np.int64(lowest_bit(mask)))  # type: ignore[call-arg]
                mask &= mask - np.uint64(1)
                if -row[j] > limit[1]:
                    _add(keys, count, limit, 1, c, -row[j], first + j)
    for i in range(whole, row.shape[0]):
        if top and row[i] > limit[0]:
            _add(keys, count, limit, 0, c, row[i], first + i)
        if bottom and -row[i] > limit[1]:
            _add(keys, count, limit, 1, c, -row[i], first + i)
