"""Compiled inner loops of the tiled CPU projection (numba, no GIL).

`scan_tile` reads one tile of logits while it is still in cache and folds it into the running
state of its rows: the best `c` candidates a side, power sums, and softmax sums for the logits and
for their negation. It is equivalent to, but never holds more than a tile of,

    L = X @ W.T
    L.topk(c), (-L).topk(c), L.logsumexp(1), (-L).logsumexp(1), L.mean(1), L.var(1), ...

State arrays, one row a vector (`n` rows, `c` candidates):
    best, best_id   [n, c]  descending scores of the side (negated logits for the bottom side)
    moments         [n, 4]  sums of t, t^2, t^3, t^4 with t = logit - centre (float64)
    softmax         [n, 3]  reference M, sum e, sum e*y with y = score - M, e = exp(y) (float64)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

BLOCK = 128
"""Columns tested at once against a row's running threshold (a constant trip count vectorises)."""


@intrinsic  # type: ignore[untyped-decorator]
def _bits_as_float(typing_context: Any, bits: Any) -> Any:
    """Reinterpret an int32 as a float32: numba has no scalar `view` that LLVM vectorises."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


def _fast_float(name: str) -> Any:
    """An LLVM float intrinsic with fast-math flags: numba's own max() does not vectorise."""

    @intrinsic  # type: ignore[untyped-decorator]
    def call(typing_context: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            binary = ir.FunctionType(ir.FloatType(), [ir.FloatType(), ir.FloatType()])
            function = builder.module.declare_intrinsic(name, [ir.FloatType()], binary)
            return builder.call(function, args, fastmath=("fast",))

        return types.float32(types.float32, types.float32), codegen

    return call


_fmax = _fast_float("llvm.maxnum")
_fmin = _fast_float("llvm.minnum")


@njit(inline="always", fastmath=True)  # type: ignore[untyped-decorator]
def _exp(y):  # type: ignore[no-untyped-def]
    """exp(y) for y <= 0 in float32, relative error below 3e-7; below -87 it gives about 1e-38.

    2^n from the exponent bits, 2^f for f in (-1, 0] from a degree 5 minimax polynomial (8.4e-8).
    """
    t = _fmax(y * np.float32(1.4426950408889634), np.float32(-126.0))
    n = np.int32(t)
    f = t - np.float32(n)
    p = np.float32(0.0009449037024751306)
    p = p * f + np.float32(0.009205798618495464)
    p = p * f + np.float32(0.0552973598241806)
    p = p * f + np.float32(0.2401801496744156)
    p = p * f + np.float32(0.6931437253952026)
    p = p * f + np.float32(1.0)
    return p * _bits_as_float(np.int32((n + np.int32(127)) << np.int32(23)))  # type: ignore[call-arg]


@njit(inline="always")  # type: ignore[untyped-decorator]
def _insert(best, best_id, score, token):  # type: ignore[no-untyped-def]
    """Insert into a descending list; an equal score stays behind, so ties keep the lowest id."""
    i = best.shape[0] - 1
    while i > 0 and best[i - 1] < score:
        best[i] = best[i - 1]
        best_id[i] = best_id[i - 1]
        i -= 1
    best[i] = score
    best_id[i] = token


@njit(inline="always", fastmath=True)  # type: ignore[untyped-decorator]
def _collect(row, first, top, top_id, bottom, bottom_id):  # type: ignore[no-untyped-def]
    """Insert every column of `row` that beats the worst candidate kept so far on either side."""
    last_top, last_bottom = top.shape[0] - 1, bottom.shape[0] - 1
    whole = row.shape[0] // BLOCK * BLOCK
    blocks = row[:whole].reshape((-1, BLOCK))
    for b in range(blocks.shape[0] + 1):
        start = b * BLOCK
        if b < blocks.shape[0]:
            block = blocks[b]
            high = low = block[0]
            for j in range(BLOCK):
                high = _fmax(high, block[j])
                low = _fmin(low, block[j])
        else:
            block = row[whole:]
            high, low = np.float32(np.inf), np.float32(-np.inf)
        if last_top >= 0 and high > top[last_top]:
            for j in range(block.shape[0]):
                if block[j] > top[last_top]:
                    _insert(top, top_id, block[j], first + start + j)
        if last_bottom >= 0 and -low > bottom[last_bottom]:
            for j in range(block.shape[0]):
                if -block[j] > bottom[last_bottom]:
                    _insert(bottom, bottom_id, -block[j], first + start + j)


@njit(inline="always", fastmath=True)  # type: ignore[untyped-decorator]
def _add_softmax(row, sign, peak, acc):  # type: ignore[no-untyped-def]
    """Fold exp(score - M) into (M, sum e, sum e*y), moving M up to `peak` first if it is higher."""
    if peak > acc[0]:
        shift = acc[0] - peak
        if acc[1] > 0.0:
            scale = np.exp(shift)
            acc[2] = scale * (acc[2] + shift * acc[1])
            acc[1] = scale * acc[1]
        acc[0] = peak
    m = np.float32(acc[0])
    total = np.float32(0.0)
    weighted = np.float32(0.0)
    for j in range(row.shape[0]):
        y = sign * row[j] - m
        e = _exp(y)
        total += e
        weighted += e * y
    acc[1] += total
    acc[2] += weighted


@njit(nogil=True, cache=True, fastmath=True)  # type: ignore[untyped-decorator]
def scan_tile(  # type: ignore[no-untyped-def]
    tile, first, centre, top, top_id, bottom, bottom_id, moments, top_soft, bottom_soft, stats
):
    """Fold `tile` [n, width] of logits for token ids `first, first+1, ...` into the state.

    `centre` [n] is subtracted before the powers are summed (so that third and fourth moments do
    not cancel). A side with no candidates (`c` = 0) is skipped, as are all sums if not `stats`.
    """
    one, minus = np.float32(1.0), np.float32(-1.0)
    for r in range(tile.shape[0]):
        row = tile[r]
        _collect(row, first, top[r], top_id[r], bottom[r], bottom_id[r])
        if not stats:
            continue
        c = np.float32(centre[r])
        high = low = row[0]
        s1 = s2 = s3 = s4 = np.float32(0.0)
        for j in range(row.shape[0]):
            v = row[j]
            high = _fmax(high, v)
            low = _fmin(low, v)
            t = v - c
            t2 = t * t
            s1 += t
            s2 += t2
            s3 += t2 * t
            s4 += t2 * t2
        moments[r, 0] += s1
        moments[r, 1] += s2
        moments[r, 2] += s3
        moments[r, 3] += s4
        if top.shape[1] > 0:
            _add_softmax(row, one, high, top_soft[r])
        if bottom.shape[1] > 0:
            _add_softmax(row, minus, -low, bottom_soft[r])


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def exact_dot(x, w):  # type: ignore[no-untyped-def]
    """x . w in float64, in a fixed order of summation (equal rows give equal scores)."""
    total = 0.0
    for i in range(x.shape[0]):
        total += np.float64(x[i]) * np.float64(w[i])
    return total


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _sort_run(score, ids, start, stop):  # type: ignore[no-untyped-def]
    """Insertion sort of score[start:stop], descending, ties by the lower id."""
    for i in range(start + 1, stop):
        s, t, j = score[i], ids[i], i
        while j > start and (score[j - 1] < s or (score[j - 1] == s and ids[j - 1] > t)):
            score[j] = score[j - 1]
            ids[j] = ids[j - 1]
            j -= 1
        score[j] = s
        ids[j] = t


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def settle(best, best_id, k, sign, vectors, readout, bound, certified):  # type: ignore[no-untyped-def]
    """Order candidates as float64 would, and say for which rows the first k are surely the top k.

    `bound` [n] is the largest error of a float32 logit of the row. Neighbours closer than twice
    that could be in the wrong order, so such runs are scored again in float64. A row is certified
    when its k-th candidate leads the last one kept by more than that: whatever was not kept is
    further behind still.
    """
    c = best.shape[1]
    scores = np.empty(c, np.float64)
    for r in range(best.shape[0]):
        slack = 2.0 * bound[r]
        certified[r] = (
            slack == 0.0 or c == readout.shape[0] or best[r, k - 1] - best[r, c - 1] > slack
        )
        start = 0
        for stop in range(1, c + 1):
            if stop < c and best[r, stop - 1] - best[r, stop] <= slack:
                continue
            if stop - start > 1 and start < k and slack > 0.0:
                for i in range(start, stop):
                    scores[i] = sign * exact_dot(vectors[r], readout[best_id[r, i]])
                _sort_run(scores, best_id[r], start, stop)
                best[r, start:stop] = scores[start:stop]
            start = stop


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def exact_topk(x, readout, ids, k, sign, best, best_id):  # type: ignore[no-untyped-def]
    """The first k of `ids` (ascending) by float64 score, written to `best`, `best_id` [k]."""
    scores = np.full(k, -np.inf)  # not in `best`: rounded to float32 they could not be told apart
    for i in range(ids.shape[0]):
        score = sign * exact_dot(x, readout[ids[i]])
        if score > scores[k - 1]:
            _insert(scores, best_id, score, ids[i])
    best[:] = scores
