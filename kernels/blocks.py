"""What both CPU paths share: blocks of rows on worker threads, running state, results.

One worker handles a row from start to end, in a fixed order. How the rows are cut into blocks
depends on their number alone. So the result does not depend on the number of workers.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .exact import exact_topk
from .lanes import LANES
from .projection import Extremes, Projection, central_moments, softmax_statistics
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


def each(work: Callable[[Any], None], items: Iterable[Any]) -> None:
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
    """The operands of a projection, and the results of all rows, filled in block by block."""

    def __init__(self, vectors: Tensor, readout: Tensor, k: int, sides: tuple[str, ...]) -> None:
        n = len(vectors)
        self.vectors, self.readout, self.k = vectors, readout, k
        self.sides = tuple(side for side in SIGNS if side in sides)
        self.ids = {side: np.zeros((n, k), np.int64) for side in self.sides}
        self.logits = {side: np.zeros((n, k), np.float32) for side in self.sides}
        self.certified = {side: np.zeros(n, np.bool_) for side in self.sides}
        self.cut = {side: np.zeros(n) for side in self.sides}
        """Every member of a row's true top k has a float32 score of at least this."""
        self.sums = np.zeros((n, 10))
        self.mean, self.shift = np.zeros(n), np.zeros(n)
        """Exact means of the rows, and what was taken off every logit before it was scanned."""

    def of(self, side: str, rows: slice) -> tuple[np.ndarray, ...]:
        """Logits, ids, certified and cut of one side of some rows."""
        arrays = (self.logits, self.ids, self.certified, self.cut)
        return tuple(array[side][rows] for array in arrays)

    def share(self, rows: slice) -> float:
        """Share of some rows certified on all sides."""
        certified = np.all([self.certified[side][rows] for side in self.sides], axis=0)
        return float(certified.mean()) if len(certified) else 1.0

    def _search_again(self, side: str) -> None:
        """Search the rows that are not certified over the whole vocabulary."""
        left, sign = np.flatnonzero(~self.certified[side]), SIGNS[side]
        x, w = self.vectors.numpy(), self.readout.numpy()

        def search(at: int) -> None:
            rows = left[at : at + AGAIN]
            some = self.vectors[torch.from_numpy(rows)]
            out = torch.empty(len(rows), len(w))
            scores = sign * product(some, self.readout.T, out).numpy()
            for row, own in zip(rows, scores, strict=True):
                close = np.flatnonzero(own >= self.cut[side][row])
                into = self.logits[side][row], self.ids[side][row]
                exact_topk(x[row], w, close, self.k, sign, *into)

        each(search, range(0, len(left), AGAIN))

    def projection(self, stats: bool, impl: str) -> Projection:
        """Everything as the public function returns it, uncertified rows searched again.

        Raises:
            ValueError: logits overflowed.
        """
        for side in self.sides:
            self._search_again(side)
        kept = [a.sum(dtype=np.float64) for a in self.logits.values()]
        if not np.isfinite([self.sums.sum(), *kept]).all():
            raise ValueError("logits overflow float32: scale the vectors down")
        extremes = {side: self._extremes(side, stats) for side in self.sides}
        powers = torch.from_numpy(self.sums[:, :4] / len(self.readout))
        return Projection(
            top=extremes.get("top"),
            bottom=extremes.get("bottom"),
            moments=central_moments(powers, torch.from_numpy(self.mean)) if stats else None,
            impl=impl,
            certified=self.share(slice(None)),
        )

    def _extremes(self, side: str, stats: bool) -> Extremes:
        ids, logits = torch.from_numpy(self.ids[side]), torch.from_numpy(self.logits[side])
        if not stats:
            return Extremes(ids, logits)
        at, sign = TOP if side == "top" else BOTTOM, SIGNS[side]
        reference, total, weighted = self.sums[:, at : at + 3].T
        columns = (np.log(total), weighted / total, reference + sign * self.shift)
        soft = softmax_statistics(sign * logits[:, 0], *map(torch.from_numpy, columns))
        return Extremes(ids, logits, *soft)


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
