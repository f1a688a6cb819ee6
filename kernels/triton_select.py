"""Triton: from bins' extremes to the k best of each row and side, scored in float64.

Let E bound the error of a screened logit. If the maxima of k bins are at least b on the screen, k
logits are at least b - E in truth. So the k best are at least b - E in truth, and on the screen at
least

    level = b - 2 E

All logits that reach the level are candidates. If there is room for all of them, the k best are
certainly among them. They are scored again in float64 from the operands as given, and ranked by
(score, lowest id).

Four kernels, one program a row and side: `levels_kernel` finds the level and the bins that reach
it, `candidates_kernel` their logits that do, `dots_kernel` scores those, `rank_kernel` writes the
first k. Sides are 0 (top) and 1 (bottom: negated logits).
"""

from __future__ import annotations

import triton
import triton.language as tl

BINS, PART = 8, 32
"""Listed bins that one step reads, and candidates that one step of the ranking compares with."""
BLOCK, INNER, RUN = 8, 1024, 8
"""Dots of one step, terms of each that are read at a time, and those of them in one thread."""


@triton.jit
def _ordered(values):
    """uint32 in the same order as the float32 values."""
    bits = values.to(tl.uint32, bitcast=True)
    return tl.where(bits >= 0x80000000, ~bits, bits | 0x80000000)


@triton.jit
def levels_kernel(
    bins_ptr, error_ptr, levels_ptr, list_ptr, listed_ptr, bins, first_side, k, room,
    GROUPS: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """levels [n, 2] float32; list [n, 2, room] of bins that reach it, listed [n, 2] their number
    (maybe more than the room). STEP bins are read at a time, a multiple of GROUPS.

    b is the k-th highest of the maxima of GROUPS sets of bins. If k is a small part of them, that
    is hardly less than the k-th highest of the bins' own maxima.
    """
    row = tl.program_id(0).to(tl.int64)
    place = row * 2 + first_side + tl.program_id(1)
    own = tl.arange(0, STEP)
    bins_ptr += place * bins
    best = tl.full((GROUPS,), -float("inf"), tl.float32)
    start = 0
    while start < bins:
        values = tl.load(bins_ptr + start + own, mask=start + own < bins, other=-float("inf"))
        best = tl.maximum(best, tl.max(tl.reshape(values, (STEP // GROUPS, GROUPS)), axis=0))
        start += STEP
    keys = _ordered(best)
    # the highest value that k groups reach, found bit by bit from the first
    reached = tl.full((), 0, tl.uint32)
    for i in tl.static_range(32):
        trial = reached | tl.full((), 1 << (31 - i), tl.uint32)
        reached = tl.where(tl.sum((keys >= trial).to(tl.int32), axis=0) >= k, trial, reached)
    kth = tl.min(tl.where(keys >= reached, best, float("inf")), axis=0)
    kth = tl.where(reached > 0, kth, -float("inf"))  # k groups or more, or there is no bound
    level = (kth - 2 * tl.load(error_ptr + row)).to(tl.float32)
    listed = 0
    start = 0
    while start < bins:
        real = start + own < bins
        values = tl.load(bins_ptr + start + own, mask=real, other=-float("inf"))
        chosen = (real & (values >= level)).to(tl.int32)
        to = listed + tl.cumsum(chosen, axis=0) - 1
        tl.store(list_ptr + place * room + to, start + own, mask=(chosen > 0) & (to < room))
        listed += tl.sum(chosen, axis=0)
        start += STEP
    tl.store(levels_ptr + place, level)
    tl.store(listed_ptr + place, listed)


@triton.jit
def candidates_kernel(
    logits_ptr, levels_ptr, list_ptr, listed_ptr, ids_ptr, count_ptr,
    vocabulary, stride, first_side, room,
    RUNS: tl.constexpr, WIDTH: tl.constexpr, RUN: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """ids int32 [n, 2, room] of the logits that reach the level in the listed bins (of
    `triton_scan.py`), count [n, 2] their number; more than the room if a list is incomplete."""
    row = tl.program_id(0).to(tl.int64)
    side = first_side + tl.program_id(1)
    place = row * 2 + side
    level = tl.load(levels_ptr + place)
    listed = tl.load(listed_ptr + place)
    bin_size: tl.constexpr = RUNS * RUN
    per_tile: tl.constexpr = WIDTH // RUN
    member = tl.arange(0, bin_size)
    count = tl.where(listed > room, room + 1, 0)
    listed = tl.minimum(listed, room)
    start = 0
    while start < listed:
        at = start + tl.arange(0, PART)
        own = tl.load(list_ptr + place * room + at, mask=at < listed, other=0)
        column = (own // per_tile) * (RUNS * WIDTH) + (own % per_tile) * RUN
        column = column[:, None] + ((member // RUN) * WIDTH + member % RUN)[None, :]
        real = (at < listed)[:, None] & (column < vocabulary)
        logits = tl.load(logits_ptr + row * stride + column, mask=real, other=0.0)
        reaches = real & (tl.where(side == 0, logits, -logits) >= level)
        flat = tl.reshape(reaches.to(tl.int32), (PART * bin_size,))
        to = count + tl.cumsum(flat, axis=0) - 1
        ids = tl.reshape(column, (PART * bin_size,))
        tl.store(ids_ptr + place * room + to, ids, mask=(flat > 0) & (to < room))
        count += tl.sum(flat, axis=0)
        start += PART
    tl.store(count_ptr + place, count)


@triton.jit
def dots_kernel(
    x_ptr, factor_ptr, w_ptr, ids_ptr, count_ptr, scores_ptr, first_side, room,
    D: tl.constexpr, C: tl.constexpr, K: tl.constexpr, RUN: tl.constexpr,
):  # fmt: skip
    """scores float64 [n, 2, room] = factor[row] x[row] . w[id] of all candidates, negated on
    side 1. Grid (n, sides, programs that share them).

    Every dot adds in the same order, so equal rows of w score equal to the last bit.
    """
    row = tl.program_id(0).to(tl.int64)
    side = first_side + tl.program_id(1)
    place = row * 2 + side
    count = tl.load(count_ptr + place)
    count = tl.where(count > room, 0, count)  # the list is incomplete
    start = tl.program_id(2) * C
    while start < count:
        at = start + tl.arange(0, C)
        ids = tl.load(ids_ptr + place * room + at, mask=at < count, other=0)
        w_at = w_ptr + ids.to(tl.int64)[:, None] * D
        total = tl.zeros((C, K // RUN), tl.float64)
        for chunk in range(0, D, K):
            inner = chunk + tl.arange(0, K)
            used = (at < count)[:, None] & (inner < D)[None, :]
            x = tl.load(x_ptr + row * D + inner, mask=inner < D, other=0.0)
            w = tl.load(w_at + inner[None, :], mask=used, other=0.0)
            x = x.to(tl.float32).to(tl.float64)
            terms = w.to(tl.float32).to(tl.float64) * x[None, :]
            total += tl.sum(tl.reshape(terms, (C, K // RUN, RUN)), axis=2)
        score = tl.sum(total, axis=1) * tl.load(factor_ptr + row)
        score = tl.where(side == 0, score, -score)
        tl.store(scores_ptr + place * room + at, score, mask=at < count)
        start += tl.num_programs(2) * C


@triton.jit
def rank_kernel(
    scores_ptr, ids_ptr, count_ptr, out_ids_ptr, out_logits_ptr, best_ptr, first_side, k, room,
    C: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """out_ids int64 and out_logits float64 [n, 2, k]: the k best of the candidates, by counting for
    each how many come before it. best float64 [n, 2]: the first score."""
    row = tl.program_id(0).to(tl.int64)
    side = first_side + tl.program_id(1)
    place = row * 2 + side
    count = tl.load(count_ptr + place)
    count = tl.where(count > room, 0, count)  # the list is incomplete
    start = 0
    while start < count:
        at = start + tl.arange(0, C)
        mine = tl.load(scores_ptr + place * room + at, mask=at < count, other=0.0)
        my_id = tl.load(ids_ptr + place * room + at, mask=at < count, other=0)
        rank = tl.zeros((C,), tl.int32)
        other = 0
        while other < count:
            to = other + tl.arange(0, PART)
            theirs = tl.load(scores_ptr + place * room + to, mask=to < count, other=0.0)[None, :]
            their_id = tl.load(ids_ptr + place * room + to, mask=to < count, other=0)[None, :]
            equal = (theirs == mine[:, None]) & (their_id < my_id[:, None])
            before = (to < count)[None, :] & ((theirs > mine[:, None]) | equal)
            rank += tl.sum(before.to(tl.int32), axis=1)
            other += PART
        written = (at < count) & (rank < k)
        tl.store(out_ids_ptr + place * k + rank, my_id.to(tl.int64), mask=written)
        logit = tl.where(side == 0, mine, -mine)
        tl.store(out_logits_ptr + place * k + rank, logit, mask=written)
        tl.store(best_ptr + place + tl.zeros((C,), tl.int32), mine, mask=written & (rank == 0))
        start += C
