"""The fused projection on the CPU: cache-sized tiles of logits, scanned as they are made.

Each worker thread takes blocks of rows, multiplies them with one slab of the read-out at a time
into a buffer that stays in cache, and folds the tile into the rows' state (`scan.py`). A row is
handled by one worker from start to end, in a fixed order, so the result does not depend on how
many there are.

Exactness. A float32 logit of d terms is off by at most gamma |x| |w|, gamma = d u / (1 - d u),
u = 2^-24 (Higham, Accuracy and Stability of Numerical Algorithms, 3.1; any order of summation).
A few more candidates than k are kept, close neighbours are scored again in float64, and rows whose
k-th candidate is not clear of the rest are searched again: the ids are those of a float64 product.
"""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .project import Extremes, Moments, Projection
from .scan import exact_topk, scan_tile, settle

ROWS, COLUMNS = 256, 1024
"""Shape of a tile: 1 MiB of float32; many blocks share the work evenly between threads."""
SPARE = 8
"""Candidates kept beyond k, so that the k-th is usually clear of the last one."""


class _State(NamedTuple):
    """Running state of all rows; its arrays are described in `scan.py`."""

    top: np.ndarray
    top_id: np.ndarray
    bottom: np.ndarray
    bottom_id: np.ndarray
    moments: np.ndarray
    top_soft: np.ndarray
    bottom_soft: np.ndarray

    def rows(self, start: int, stop: int) -> _State:
        return _State(*(a[start:stop] for a in self))


def _new_state(n: int, top: int, bottom: int) -> _State:
    def scores(c: int) -> np.ndarray:
        return np.full((n, c), -np.inf, np.float32)

    def softmax() -> np.ndarray:
        return np.tile(np.array([-np.inf, 0.0, 0.0]), (n, 1))

    return _State(
        scores(top),
        np.zeros((n, top), np.int64),
        scores(bottom),
        np.zeros((n, bottom), np.int64),
        np.zeros((n, 4)),
        softmax(),
        softmax(),
    )


def project_tiled(
    vectors: Tensor, readout: Tensor, k: int, sides: tuple[str, ...], stats: bool
) -> Projection:
    """See `project_topk`; contiguous float32 on the CPU."""
    n, vocabulary = len(vectors), len(readout)
    kept = min(k + SPARE, vocabulary)
    state = _new_state(n, kept * ("top" in sides), kept * ("bottom" in sides))
    centre = (vectors @ readout.mean(0)).numpy() if stats else np.zeros(n, np.float32)
    bound = _error_bound(vectors, readout)
    local = threading.local()

    def block(start: int) -> None:
        if not hasattr(local, "buffer"):
            torch.set_num_threads(1)  # of this worker: the workers are the parallelism
            local.buffer = torch.empty(ROWS * COLUMNS)
        stop = min(start + ROWS, n)
        part = state.rows(start, stop)
        for first in range(0, vocabulary, COLUMNS):
            slab = readout[first : first + COLUMNS]
            # a view of exactly the right shape: mm(out=) resizes any other without a word
            tile = local.buffer[: (stop - start) * len(slab)].view(stop - start, len(slab))
            torch.mm(vectors[start:stop], slab.T, out=tile)
            scan_tile(tile.numpy(), first, centre[start:stop], *part, stats)
        rows = vectors[start:stop]
        for sign, best, ids in ((1.0, part.top, part.top_id), (-1.0, part.bottom, part.bottom_id)):
            if best.shape[1]:
                _settle(best, ids, k, sign, rows, readout, bound[start:stop])

    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads)
    try:
        list(pool.map(block, range(0, n, ROWS)))
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C waits for a block, not for all of them
        torch.set_num_threads(threads)
    return _projection(state, centre, k, vocabulary, stats)


def _error_bound(vectors: Tensor, readout: Tensor) -> np.ndarray:
    """[n] largest |float32 logit - exact logit| of each row."""
    du = vectors.shape[1] * 2.0**-24
    gamma = du / (1.0 - du)
    longest = float(torch.linalg.vector_norm(readout, dim=1).max())
    # the norms are rounded themselves: a part in a thousand more than covers that
    lengths = torch.linalg.vector_norm(vectors, dim=1).double()
    return np.asarray(1.001 * gamma * longest * lengths)


def _settle(
    best: np.ndarray,
    ids: np.ndarray,
    k: int,
    sign: float,
    rows: Tensor,
    readout: Tensor,
    bound: np.ndarray,
) -> None:
    """Put each row's first k candidates in float64 order, searching uncertified rows again."""
    x, w = rows.numpy(), readout.numpy()
    certified = np.zeros(len(best), np.bool_)
    kth = best[:, k - 1].copy()
    settle(best, ids, k, sign, x, w, bound, certified)
    for r in np.flatnonzero(~certified):
        logits = (readout @ rows[r]).numpy()
        # true top-k members score at most the bound below the true k-th, which lies at most the
        # bound below the float32 k-th; the recomputed logit may be off by the bound once more
        close = np.flatnonzero(sign * logits >= kth[r] - 2.0 * bound[r])
        exact_topk(x[r], w, close, k, sign, best[r, :k], ids[r, :k])


def _projection(
    state: _State, centre: np.ndarray, k: int, vocabulary: int, stats: bool
) -> Projection:
    if not np.isfinite([a.sum() for a in (state.top, state.bottom, state.moments)]).all():
        raise ValueError("logits overflow float32: scale the vectors down")
    return Projection(
        top=_extremes(state.top, state.top_id, state.top_soft, k, 1, stats),
        bottom=_extremes(state.bottom, state.bottom_id, state.bottom_soft, k, -1, stats),
        moments=_moments(state.moments / vocabulary, centre) if stats else None,
        impl="tiled",
    )


def _extremes(
    best: np.ndarray, ids: np.ndarray, soft: np.ndarray, k: int, sign: int, stats: bool
) -> Extremes | None:
    if not best.shape[1]:
        return None
    kept = torch.from_numpy(ids[:, :k].copy()), torch.from_numpy(sign * best[:, :k])
    if not stats:
        return Extremes(*kept, None, None, None)
    reference, total, weighted = soft.T
    # with p = e / total:  H = log total - E[y], clipped because rounding can pass the two ends
    entropy = np.maximum(np.log(total) - weighted / total, 0.0)
    columns = (reference + np.log(total), entropy, np.minimum(1.0 / total, 1.0))
    return Extremes(*kept, *(torch.from_numpy(c).float() for c in columns))


def _moments(powers: np.ndarray, centre: np.ndarray) -> Moments:
    """Central moments from mean powers of t = logit - centre, where centre is nearly the mean."""
    p1, p2, p3, p4 = powers.T
    var = np.maximum(p2 - p1**2, 0.0)
    third = p3 - 3 * p1 * p2 + 2 * p1**3
    fourth = p4 - 4 * p1 * p3 + 6 * p1**2 * p2 - 3 * p1**4
    safe = np.where(var > 0, var, math.inf)
    columns = (centre + p1, var, third / safe**1.5, np.where(var > 0, fourth / safe**2 - 3.0, 0.0))
    return Moments(*(torch.from_numpy(c).float() for c in columns))
