"""From candidates to exact answers: float64 scores, and the proof that nothing was missed (numba).

All of it works on one side at a time: `sign` is 1 for the top, -1 for the bottom, and a score is
sign * logit. Logits are in the unit of the products (`scaling.py`): those of the vectors as given
times `factor`. 'Exact' means: as a float64 product of the float32 operands ranks them, equal scores
by the lowest id. A float64 sum of d products is itself off by at most d 2^-53 |x| |w|.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .candidates import MATH, keep_best, score_of, token_of
from .lanes import prefetch
from .scan import BOTTOM, TOP, move_reference

AHEAD = 2
"""How many candidates ahead rows of the read-out are prefetched."""
SUM = 4e-7
"""Relative error of a float32 sum of exponentials (`scan.py`), or more."""
LOST = 256.0
"""If exact logits make a sum of powers this many times smaller, only rounding errors are left."""
NOTHING = 1e-9
"""A share of the probability that changes no statistic."""


@njit(forceinline=True, fastmath=MATH)  # type: ignore[untyped-decorator]
def exact_dot(x, readout, token):  # type: ignore[no-untyped-def]
    """A token's logit in float64; x is float64, the read-out float32.

    Equal rows give equal sums (one order for all).
    """
    total = 0.0
    for i in range(x.shape[0]):
        total += x[i] * np.float64(readout[token, i])
    return total


@njit(inline="always")  # type: ignore[untyped-decorator]
def _fetch(readout, token):  # type: ignore[no-untyped-def]
    for start in range(0, readout.shape[1], 16):  # a cache line
        prefetch(readout, token * readout.shape[1] + start)  # type: ignore[call-arg]


@njit(inline="always")  # type: ignore[untyped-decorator]
def _insert(best, best_id, score, token):  # type: ignore[no-untyped-def]
    """Insert into a descending list, equal scores by the lowest id; the last one drops out."""
    i = best.shape[0] - 1
    while i > 0 and (best[i - 1] < score or (best[i - 1] == score and best_id[i - 1] > token)):
        best[i] = best[i - 1]
        best_id[i] = best_id[i - 1]
        i -= 1
    best[i] = score
    best_id[i] = token


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _sorted(keys, count, limit, c):  # type: ignore[no-untyped-def]
    """Sort the best candidates, c or up to an eighth more, to the front, descending.

    Returns their number, and a score that nothing left out lies above (before the call: `limit`).
    """
    most = c + c // 8
    if count > most:
        cut, count = keep_best(keys, count, c, most)
        limit = max(limit, score_of(cut))
    for i in range(1, count):
        key, j = keys[i], i
        while j > 0 and keys[j - 1] < key:
            keys[j] = keys[j - 1]
            j -= 1
        keys[j] = key
    return count, limit


@njit(inline="always")  # type: ignore[untyped-decorator]
def _all_equal(bound, logits, ids):  # type: ignore[no-untyped-def]
    """Write the lowest ids, for a row with too few candidates; proven if all its logits are 0."""
    logits[:] = 0.0
    ids[:] = np.arange(ids.shape[0])
    return bound == 0.0


@njit(inline="always")  # type: ignore[untyped-decorator]
def _write(sign, scores, logits):  # type: ignore[no-untyped-def]
    """`logits[:] = sign * scores[:k]`, of which numba compiles 38 functions more, for 5 s."""
    for i in range(logits.shape[0]):
        logits[i] = sign * scores[i]


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def settle(  # type: ignore[no-untyped-def]
    keys, count, limit, k, c, sign, vectors, readout, factor, chosen, bound,
    logits, ids, certified, cut, best,
):  # fmt: skip
    """Order float32 candidates as float64 would, and say for which rows the first k are proven.

    Only of the rows that are `chosen` [n].

    `bound` [n] is the largest error of a float32 logit of the row, 0 only where the vector is 0.
    Neighbours closer than twice the bound may be in the wrong order, so runs of them are scored
    again in float64. A row is certified when its k-th candidate is more than twice the bound ahead
    of everything that was not kept. Writes `logits`, `ids` [n, k], `certified` [n], `best` [n], the
    first score, and `cut` [n]: every member of the true top k has a float32 score of at least that.
    """
    scores = np.empty(keys.shape[1], np.float64)
    tokens = np.empty(keys.shape[1], np.int64)
    for r in range(vectors.shape[0]):
        if not chosen[r]:
            continue
        kept, rest = _sorted(keys[r], count[r], limit[r], c)
        if kept < k or bound[r] == 0.0:
            certified[r] = _all_equal(bound[r], logits[r], ids[r])
            cut[r] = -np.inf
            continue
        for i in range(kept):
            scores[i] = score_of(keys[r, i])
            tokens[i] = token_of(keys[r, i])
        slack = 2.0 * bound[r]
        certified[r] = kept == readout.shape[0] or scores[k - 1] - rest > slack
        # true members lie at most the bound below the true k-th, which lies at most the bound
        # below the float32 k-th; their own float32 score may be off by the bound once more
        cut[r] = scores[k - 1] - slack
        x = vectors[r].astype(np.float64) * factor[r]
        start = 0
        for stop in range(1, kept + 1):
            if stop < kept and scores[stop - 1] - scores[stop] <= slack:
                continue
            if stop - start > 1 and start < k:
                for i in range(start, stop):
                    score = sign * exact_dot(x, readout, tokens[i])
                    _insert(scores[start : i + 1], tokens[start : i + 1], score, tokens[i])
            start = stop
        _write(sign, scores, logits[r])
        ids[r] = tokens[:k]
        best[r] = scores[0]


@njit(inline="always")  # type: ignore[untyped-decorator]
def replace(  # type: ignore[no-untyped-def]
    sums, r, sign, centre, soft, was, now, count, known, kth, vocabulary
):
    """Put better logits `now` in the place of `count` others in a sums of row r (see scan.py).

    Returns what may still be wrong with the logsumexp of side `sign`, in nats: nothing, if the
    others would be too little even if the whole vocabulary were at `kth`, which none of them is
    above; else the share of the probability that is not replaced, times the typical error of what
    is (at least `known`), and float32's rounding of the sum, of which the replaced terms were taken
    off.
    """
    squares, doubt = 0.0, 0.0
    for i in range(count):
        old, new = was[i] - centre, now[i] - centre
        squares += (now[i] - was[i]) ** 2
        sums[r, 0] += new - old
        sums[r, 1] += new**2 - old**2
        sums[r, 2] += new**3 - old**3
        sums[r, 3] += new**4 - old**4
    for at, side in ((TOP, 1.0), (BOTTOM, -1.0)):
        for i in range(count):
            move_reference(sums, r, at, side * now[i], soft)
        before, others, weighted = sums[r, at + 1], sums[r, at + 1], sums[r, at + 2]
        for i in range(count):
            y = soft * (side * was[i] - sums[r, at])
            others -= np.exp(y)
            weighted -= y * np.exp(y)
        total = terms = 0.0
        for i in range(count):
            y = soft * (side * now[i] - sums[r, at])
            total += np.exp(y)
            terms += y * np.exp(y)
        others = max(others, 0.0)
        if side == sign:
            ceiling = vocabulary * np.exp(min(soft * (kth - sums[r, at]), 500.0))
            if ceiling < NOTHING * total:
                others = weighted = 0.0
            else:
                typical = max(known, soft * np.sqrt(squares / max(count, 1)))
                lost = others * typical + SUM * before
                # beyond a fraction of a nat even the share of the others is a guess
                known = total + others > 0.0 and typical < 0.5
                doubt = lost / (total + others) if known else np.inf
        sums[r, at + 1], sums[r, at + 2] = total + others, terms + weighted
    return doubt


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def rescore(  # type: ignore[no-untyped-def]
    keys, count, limit, k, c, sign, vectors, readout, factor, chosen, error, rounding, tail,
    shift, shrink, soft, centre, sums, doubt, logits, ids, certified, cut, first,
):  # fmt: skip
    """Exact top k of screened candidates of the rows `chosen`, and for which rows it is proven.

    Candidates are scored in float64 in the order of their screened scores. This stops when the
    next one, even with the whole error in its favour, stays behind the k-th best exact score. The
    row is certified if that happens, or if it holds for everything that was not kept.

        error [n] + rounding * |screened score|     bound on the error of a screened logit; error
                    is 0 only where the vector is 0
        tail [n]    bound on the error of a float64 logit
        shift [n]   x . mean of the read-out if that was taken off before screening, else 0
        shrink [n]  what screened logits were multiplied with in `sums`, to be right on average
        doubt [n]   the least that a logit in `sums` is typically off, in nats

    Exact scores also replace screened ones in `sums`, of which `centre` [n] is the centre, and
    `doubt` becomes what `replace` says. Writes `logits`, `ids` and `certified` as `settle` does, to
    `cut` the k-th exact score so far, less its error, and to `first` the best score as the sums
    know it: without the shift.
    """
    best, best_id = np.empty(k, np.float64), np.empty(k, np.int64)
    was, now = np.empty(keys.shape[1], np.float64), np.empty(keys.shape[1], np.float64)
    for r in range(vectors.shape[0]):
        if not chosen[r]:
            continue
        kept, rest = _sorted(keys[r], count[r], limit[r], c)
        if kept < k or error[r] == 0.0:
            certified[r] = _all_equal(error[r], logits[r], ids[r])
            cut[r] = -np.inf
            doubt[r] = 0.0 if error[r] == 0.0 else np.inf
            continue
        x = vectors[r].astype(np.float64) * factor[r]
        best[:] = -np.inf
        best_id[:] = 0
        replaced = 0
        proven = kept == readout.shape[0]
        for i in range(min(AHEAD, kept)):
            _fetch(readout, token_of(keys[r, i]))
        for i in range(kept + 1):
            if i + AHEAD < kept:
                _fetch(readout, token_of(keys[r, i + AHEAD]))
            # what is left: the next ones, and all that was not kept
            left = np.float64(max(score_of(keys[r, i]), rest) if i < kept else rest)
            reach = left + error[r] + rounding * abs(left)
            if i >= k and reach < best[k - 1] - sign * shift[r] - tail[r]:
                proven = True
                break
            if i == kept:
                break
            token = token_of(keys[r, i])
            logit = exact_dot(x, readout, token)
            score = sign * logit
            if score > best[k - 1] or (score == best[k - 1] and token < best_id[k - 1]):
                _insert(best, best_id, score, token)
            # each side answers for its half of the row, so that none is replaced twice
            screened = shrink[r] * np.float64(score_of(keys[r, i]))
            if screened - sign * centre[r] > 0.0:
                was[replaced] = sign * screened
                now[replaced] = logit - shift[r]
                replaced += 1
        if sums.shape[1]:
            kth = best[k - 1] - sign * shift[r] if proven else np.inf
            doubt[r] = replace(
                sums, r, sign, centre[r], soft[r], was, now, replaced, doubt[r], kth,
                readout.shape[0],
            )  # fmt: skip
        certified[r] = proven
        cut[r] = best[k - 1] - tail[r]
        _write(sign, best, logits[r])
        ids[r] = best_id
        first[r] = best[0] - sign * shift[r]


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def exact_topk(x, readout, factor, tokens, k, sign, logits, ids):  # type: ignore[no-untyped-def]
    """The first k of `tokens` (ascending) by float64 score, written to `logits`, `ids` [k]."""
    x = x.astype(np.float64) * factor
    best = np.full(k, -np.inf)  # not in `logits`: rounded to float32 they could not be told apart
    for i in range(tokens.shape[0]):
        score = sign * exact_dot(x, readout, tokens[i])
        if score > best[k - 1]:
            _insert(best, ids, score, tokens[i])
    _write(sign, best, logits)
