"""What both CPU paths share: blocks of rows on worker threads, products, running state.

One worker handles a row from start to end, in a fixed order. How the rows are cut into blocks
depends on their number alone. So the result does not depend on the number of workers.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from .lanes import LANES
from .scan import BOTTOM, TOP

ROWS = 512
"""Rows of a full block; a tile is this times `COLUMNS`, the size of a core's own cache (1 MiB)."""
TAIL = 256
"""Rows of the last blocks: small ones, so that no worker waits long for another."""
INNER = 4096
"""Terms of a logit that one matrix product sums; see `product`."""
T = TypeVar("T")
R = TypeVar("R")
SIGNS = {"top": 1.0, "bottom": -1.0}


def cut(n: int) -> list[tuple[int, int]]:
    """(start, stop) of the blocks of n rows: full ones, and the last few hundred in small ones."""
    full = max(n // ROWS - 2, 0) * ROWS
    starts = [*range(0, full, ROWS), *range(full, n, TAIL)]
    return list(zip(starts, [*starts[1:], n], strict=True)) if starts else []


def each(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`work` of every item, in as many worker threads as torch has (one torch thread each)."""
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        return list(pool.map(work, items))
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C waits for an item, not for all of them
        torch.set_num_threads(threads)


def product(x: Tensor, w: Tensor, out: Tensor) -> Tensor:
    """x [n, d] @ w [d, m] into `out`; in float32 within the bound `rounding.float32_error`.

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
            bits = tile.view(torch.int16) if tile.dtype == torch.bfloat16 else tile
            self._views[rows, columns] = tile, bits.numpy()
        return self._views[rows, columns]
