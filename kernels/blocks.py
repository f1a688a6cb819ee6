"""What both CPU paths share: blocks of rows on worker threads, running state, results.

One worker handles a row from start to end, in a fixed order. How the rows are cut into blocks
depends on their number alone. So the result does not depend on the number of workers.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .exact import exact_topk
from .lanes import LANES
from .projection import Extremes, Moments, Projection
from .scan import BOTTOM, TOP

ROWS = 512
"""Rows of a full block; a tile is this times `COLUMNS`, the size of a core's own cache (1 MiB)."""
TAIL = 256
"""Rows of the last blocks: small ones, so that no worker waits long for another."""
INNER = 4096
"""Terms of a logit that one matrix product sums; see `product`."""
AGAIN = 64
"""Rows of one second search over the whole vocabulary."""
SIGNS = {"top": 1.0, "bottom": -1.0}


def cut(n: int) -> list[tuple[int, int]]:
    """(start, stop) of the blocks of n rows: full ones, and the last few hundred in small ones."""
    full = max(n // ROWS - 2, 0) * ROWS
    starts = [*range(0, full, ROWS), *range(full, n, TAIL)]
    return list(zip(starts, [*starts[1:], n], strict=True)) if starts else []


def each(work: Callable[[int], None], items: Iterable[int]) -> None:
    """Call `work` on every item, in as many worker threads as torch has (one torch thread each)."""
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        list(pool.map(work, items))
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C waits for an item, not for all of them
        torch.set_num_threads(threads)


def product(x: Tensor, w: Tensor, out: Tensor) -> Tensor:
    """x [n, d] @ w [d, m] in float32 into `out`, within the bound `rounding.float32_error`.

    More than INNER terms are summed in parts. Otherwise the bound would grow with the whole of d,
    and hardly a row of a model 16,384 wide could be proven.
    """
    if x.shape[1] <= INNER:  # a slice takes 30 us when a tile has just swept the caches
        return torch.mm(x, w, out=out)
    torch.mm(x[:, :INNER], w[:INNER], out=out)
    for start in range(INNER, x.shape[1], INNER):
        out += x[:, start : start + INNER] @ w[start : start + INNER]
    return out


class State(NamedTuple):
    """Running state of a block's rows; its arrays are described in `scan.py`."""

    keys: np.ndarray
    counts: np.ndarray
    limit: np.ndarray
    sums: np.ndarray

    def side(self, side: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Keys, counts and limits of one side."""
        at = list(SIGNS).index(side)
        return self.keys[:, at], self.counts[:, at], self.limit[:, at]


def _in_huge_pages(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """An array of zeros in pages of 2 MiB where the system has them.

    Rows of state lie far apart. With small pages every tile evicts their addresses from the
    processor's TLB, which costs 7 % of a scan. numpy asks for huge pages from 4 MiB on.
    """
    size, page = math.prod(shape) * np.dtype(dtype).itemsize, 2**21
    memory = np.zeros(max(size + page, 2 * page), np.uint8)
    start = -memory.ctypes.data % page
    return memory[start : start + size].view(dtype).reshape(shape)


def new_state(reference: np.ndarray, kept: int, sides: tuple[str, ...]) -> State:
    """State of rows whose first references of exp are `reference` [n]; `kept` candidates a side."""
    n = len(reference)
    sums = np.zeros((n, 10))
    sums[:, TOP], sums[:, BOTTOM] = reference, -reference
    limit = np.zeros((n, 2), np.float32)
    limit[:] = [-np.inf if side in sides else np.inf for side in SIGNS]
    keys = _in_huge_pages((n, 2, 2 * kept + LANES), np.uint64)
    return State(keys, np.zeros((n, 2), np.int64), limit, sums)


class Results:
    """Results of all rows, filled in block by block."""

    def __init__(self, n: int, k: int, sides: tuple[str, ...]) -> None:
        self.sides = tuple(side for side in SIGNS if side in sides)
        self.ids = {side: np.zeros((n, k), np.int64) for side in self.sides}
        self.logits = {side: np.zeros((n, k), np.float32) for side in self.sides}
        self.certified = {side: np.zeros(n, np.bool_) for side in self.sides}
        self.cut = {side: np.zeros(n) for side in self.sides}
        """Every member of a row's true top k has a float32 score of at least this."""
        self.sums = np.zeros((n, 10))

    def of(self, side: str, rows: slice) -> tuple[np.ndarray, ...]:
        """Logits, ids, certified and cut of one side of some rows."""
        arrays = (self.logits, self.ids, self.certified, self.cut)
        return tuple(array[side][rows] for array in arrays)

    def search_again(self, vectors: Tensor, readout: Tensor) -> float:
        """Search uncertified rows over the whole vocabulary; returns the share certified before."""
        for side in self.sides:
            rows = np.flatnonzero(~self.certified[side])
            each(
                lambda at, side=side, rows=rows: self._search(  # type: ignore[misc]
                    vectors, readout, rows[at : at + AGAIN], side
                ),
                range(0, len(rows), AGAIN),
            )
        return self.share(slice(None))

    def share(self, rows: slice) -> float:
        """Share of some rows certified on all sides."""
        certified = np.all([self.certified[side][rows] for side in self.sides], axis=0)
        return float(certified.mean()) if len(certified) else 1.0

    def _search(self, vectors: Tensor, readout: Tensor, rows: np.ndarray, side: str) -> None:
        some = vectors[torch.from_numpy(rows)]
        logits = product(some, readout.T, torch.empty(len(some), len(readout))).numpy()
        x, w, sign = vectors.numpy(), readout.numpy(), SIGNS[side]
        k = self.ids[side].shape[1]
        for row, scores in zip(rows, sign * logits, strict=True):
            close = np.flatnonzero(scores >= self.cut[side][row])
            exact_topk(x[row], w, close, k, sign, self.logits[side][row], self.ids[side][row])

    def projection(
        self,
        mean: np.ndarray,
        shift: np.ndarray,
        vocabulary: int,
        stats: bool,
        impl: str,
        share: float,
    ) -> Projection:
        """Everything as the public function returns it.

        Args:
            mean: [n] exact means of the rows.
            shift: [n] what was taken off every logit of a row before it was scanned.
        """
        kept = [a.sum(dtype=np.float64) for a in self.logits.values()]
        if not np.isfinite([self.sums.sum(), *kept]).all():
            raise ValueError("logits overflow float32: scale the vectors down")
        extremes = {side: self._extremes(side, shift, stats) for side in self.sides}
        return Projection(
            top=extremes.get("top"),
            bottom=extremes.get("bottom"),
            moments=_moments(self.sums[:, :4] / vocabulary, mean) if stats else None,
            impl=impl,
            certified=share,
        )

    def _extremes(self, side: str, shift: np.ndarray, stats: bool) -> Extremes:
        kept = torch.from_numpy(self.ids[side]), torch.from_numpy(self.logits[side])
        if not stats:
            return Extremes(*kept, None, None, None)
        at, sign = (TOP, 1.0) if side == "top" else (BOTTOM, -1.0)
        reference, total, weighted = self.sums[:, at : at + 3].T
        # with p = e / total:  H = log total - E[y], clipped because rounding can pass the two ends
        entropy = np.maximum(np.log(total) - weighted / total, 0.0)
        logsumexp = reference + np.log(total) + sign * shift
        first = sign * self.logits[side][:, 0].astype(np.float64)
        probability = np.minimum(np.exp(first - logsumexp), 1.0)
        columns = (logsumexp, entropy, probability)
        return Extremes(*kept, *(torch.from_numpy(c).float() for c in columns))


def _moments(powers: np.ndarray, mean: np.ndarray) -> Moments:
    """Central moments from mean powers of t = logit - centre, where centre is nearly the mean."""
    p1, p2, p3, p4 = powers.T
    var = np.maximum(p2 - p1**2, 0.0)
    third = p3 - 3 * p1 * p2 + 2 * p1**3
    fourth = p4 - 4 * p1 * p3 + 6 * p1**2 * p2 - 3 * p1**4
    safe = np.where(var > 0, var, math.inf)
    columns = (mean, var, third / safe**1.5, np.where(var > 0, fourth / safe**2 - 3.0, 0.0))
    return Moments(*(torch.from_numpy(c).float() for c in columns))


class Buffers(threading.local):
    """A worker's own tile, made once, and its views of every shape asked for."""

    def __init__(self, dtype: torch.dtype, columns: int) -> None:
        self._tile = torch.empty(ROWS * columns, dtype=dtype)
        self._views: dict[tuple[int, int], tuple[Tensor, np.ndarray]] = {}

    def view(self, rows: int, columns: int) -> tuple[Tensor, np.ndarray]:
        """A tile of exactly this shape (mm(out=) silently resizes any other), and its numpy view.

        The numpy view of bfloat16, which numpy lacks, is int16.
        """
        if (rows, columns) not in self._views:
            tile = self._tile[: rows * columns].view(rows, columns)
            bits = tile if tile.dtype == torch.float32 else tile.view(torch.int16)
            self._views[rows, columns] = tile, bits.numpy()
        return self._views[rows, columns]
