"""A second screen, of candidates alone: their scores in a finer format (numba, no GIL).

A coarse screen leaves many candidates within its error of the k-th. To score them all in float64
would take as long as the screen saves. So a row's candidates are scored in int16 first, from a
second plane of both operands, and those that this rules out are dropped:

1. The k best by coarse scores get fine ones. The true k-th score is at least the lowest of these
   less its error.
2. Every other candidate whose coarse score reaches that with its error gets a fine score.

What the scan did not keep is bounded by the coarse limit and the coarse error. The limit is raised
by the difference of the two errors. So one error a row, the fine one, holds for both in
`exact.rescore`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .candidates import MATH, keep_best, pack, score_of, token_of
from .exact import AHEAD, replace
from .lanes import prefetch

LINE = 32
"""Numbers of int16 in a cache line."""
LOWEST = -3e38
"""Below every score: in the place of minus infinity, so that a bound on it is one."""


@njit(forceinline=True, fastmath=MATH)  # type: ignore[untyped-decorator]
def _dot(x, r, w, token):  # type: ignore[no-untyped-def]
    total = np.int32(0)
    for i in range(x.shape[1]):
        total = np.int32(total + np.int32(x[r, i]) * np.int32(w[token, i]))
    return total


@njit(inline="always")  # type: ignore[untyped-decorator]
def _fetch(w, token):  # type: ignore[no-untyped-def]
    for start in range(0, w.shape[1], LINE):
        prefetch(w, token * w.shape[1] + start)  # type: ignore[call-arg]


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _score(keys, some, count, sign, r, x, w, rows, columns, order, scores):  # type: ignore[no-untyped-def]
    """Write the fine scores of the keys at some[:count] to `scores`, at the same places."""
    for i in range(min(AHEAD, count)):
        _fetch(w, order[token_of(keys[some[i]])])
    for i in range(count):
        if i + AHEAD < count:
            _fetch(w, order[token_of(keys[some[i + AHEAD]])])
        token = order[token_of(keys[some[i]])]
        logit = rows[r] * (columns[token] * np.float32(_dot(x, r, w, token)))
        scores[some[i]] = np.float32(sign) * logit


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def sharpen(  # type: ignore[no-untyped-def]
    keys, count, limit, k, sign, x, w, rows, columns, order, coarse, fine, tail, unit,
    shrink, soft, centre, easy, sums, typical,
):  # fmt: skip
    """Give the candidates of one side fine scores, and drop those that cannot be among the k best.

        x [n, d], w [V, d]          int16, rows times their scales `rows` [n], `columns` [V]
        order [V]                   token ids; before, keys hold positions in it, after, ids
        easy                        as many positions that were scored coarsely, the others were in
                                    fine
        coarse, fine [n], unit      bounds on the errors of scores, as `error` and `rounding` in
                                    `exact.rescore` (`unit` for both); coarse is 0 only where the
                                    vector is 0
        tail [n]    bound on the error of a float64 logit

    Fine scores replace coarse ones in `sums`, which hold coarse scores times `shrink`. `typical`
    [n] becomes the typical error of those, in nats.
    """
    room, nothing = keys.shape[1], np.inf
    best, scores = np.empty(room, np.uint64), np.empty(room, np.float32)
    first, others = np.empty(room, np.int64), np.empty(room, np.int64)
    was, now = np.empty(room, np.float64), np.empty(room, np.float64)
    for r in range(coarse.shape[0]):
        if count[r] < k or coarse[r] == 0.0:
            continue
        cut, many = np.uint64(0), count[r]
        if many > k + k // 8:
            best[:many] = keys[r, :many]
            cut, _ = keep_best(best, many, k, k + k // 8)
        several = 0
        for i in range(many):
            first[several] = i
            several += keys[r, i] > cut
        _score(keys[r], first, several, sign, r, x, w, rows, columns, order, scores)
        least = np.inf
        for i in range(several):
            least = min(least, np.float64(scores[first[i]]))
        level = least - unit * abs(least) - fine[r] - 2.0 * tail[r]
        more = 0
        for i in range(many):
            score = np.float64(score_of(keys[r, i]))
            others[more] = i
            more += keys[r, i] <= cut and score + unit * abs(score) + coarse[r] >= level
        _score(keys[r], others, more, sign, r, x, w, rows, columns, order, scores)
        first[several : several + more] = others[:more]
        replaced = moved = 0
        squares = 0.0
        for i in range(several + more):
            key, score = keys[r, first[i]], scores[first[i]]
            # each side answers for its half of the row, as in `exact.rescore`
            if np.float64(score) - sign * centre[r] > 0.0:
                was[replaced] = sign * shrink[r] * np.float64(score_of(key))
                now[replaced] = sign * np.float64(score)
                if token_of(key) < easy:
                    squares += (now[replaced] - was[replaced]) ** 2
                    moved += 1
                replaced += 1
            best[i] = pack(score, order[token_of(key)])
        count[r] = several + more
        keys[r, : count[r]] = best[: count[r]]
        rest = max(np.float64(limit[r]), LOWEST)
        limit[r] = rest + coarse[r] - fine[r] + 2.0 * unit * (abs(rest) + coarse[r])
        if sums.shape[1]:
            typical[r] = soft[r] * np.sqrt(squares / max(moved, 1))
            replace(
                sums, r, sign, centre[r], soft[r], was, now, replaced, typical[r],
                nothing, columns.shape[0],
            )  # fmt: skip
