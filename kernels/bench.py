"""Benchmark of the fused projection: variants interleaved in one process.

Variants, all over the same Gaussian vectors and read-out (logits of standard deviation 1):
    mm              bare float32 `torch.mm(out=)` of the kernel's tiles, torch's own threads
    mm_workers      the same tiles, one worker thread per block of rows as in the kernel
    mm_screened, mm_screened16
                    bare products of the screens' tiles, in bfloat16 and in int16, worker threads
    screened, screened16
                    the fused kernel, both sides, all statistics, screened in these
    tiled           the fused kernel, both sides, all statistics, in float32
    naive           dense logits, two `topk`, the same statistics, in chunks of rows
    topk            dense logits and two `topk`, no statistics
    compiled        `torch.compile` of the naive version
    faiss           `faiss.IndexFlatIP.search`: the top side alone, no statistics

The last four handle chunks of vectors independently of each other. So they are timed on a quarter
of the vectors, and the time is multiplied by four.
"""

from __future__ import annotations

import importlib.util
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import starmap
from pathlib import Path

import torch
from torch import Tensor

from .blocks import ROWS, Buffers, cut, each
from .data import gaussian
from .project import Impl, project_topk
from .rounding import STEP, Format, some_rows
from .screened import FORMATS
from .tiled import COLUMNS

Timing = dict[str, float | str | int]
QUARTER = 4
OTHERS = ("topk", "compiled", "faiss")
IN_PART = ("naive", *OTHERS)
"""Variants timed on a quarter of the vectors."""


class Case:
    """Operands of one shape and the variants that can run here."""

    def __init__(
        self, d: int, vocabulary: int, rows: int, k: int, others: tuple[str, ...] = OTHERS
    ) -> None:
        self.x, self.w = gaussian(rows, vocabulary, d)
        self.part = self.x[: -(-rows // QUARTER)]
        self.k = k
        self.missing: dict[str, str] = {}
        """Variants that cannot run here, and why."""
        self.variants: dict[str, Callable[[], object]] = {
            "mm": lambda: _mm(self.x, self.w, COLUMNS, _in_turn),
            "mm_workers": lambda: _mm(self.x, self.w, COLUMNS, each),
            "tiled": lambda: project_topk(self.x, self.w, k, impl="tiled"),
            "naive": self._in_chunks(naive),
        }
        for numbers in FORMATS:
            if numbers.supported():
                self.variants[f"mm_{numbers.name}"] = bare(numbers, self.x, self.w)
                self.variants[numbers.name] = partial(
                    project_topk, self.x, self.w, k, impl=numbers.name
                )
            else:
                self.missing[numbers.name] = "this processor does not multiply such numbers"
        if "topk" in others:
            self.variants["topk"] = self._in_chunks(_two_topk)
        if "compiled" in others:
            if any(map(shutil.which, ("g++", "clang++"))):
                self.variants["compiled"] = self._in_chunks(torch.compile(naive))
            else:
                self.missing["compiled"] = "torch.compile needs a C++ compiler here"
        if "faiss" in others:
            if importlib.util.find_spec("faiss") is not None:
                self.variants["faiss"] = self._faiss()
            else:
                self.missing["faiss"] = "faiss is not installed (pip install faiss-cpu)"

    def _in_chunks(self, work: Callable[[Tensor, Tensor, int], object]) -> Callable[[], None]:
        def run() -> None:
            for chunk in torch.split(self.part, ROWS):
                work(chunk, self.w, self.k)

        return run

    def _faiss(self) -> Callable[[], None]:
        import faiss

        index = faiss.IndexFlatIP(self.w.shape[1])
        index.add(self.w.numpy())

        def search() -> None:
            faiss.omp_set_num_threads(torch.get_num_threads())
            index.search(self.part.numpy(), self.k)

        return search

    def warm_up(self) -> dict[str, int]:
        """Run every variant once; the peak memory of each beyond its operands, in bytes."""
        return {name: peak_memory(variant) for name, variant in self.variants.items()}

    def repeat(self, number: int) -> list[Timing]:
        """One timing of every variant; odd repeats take them in reverse order."""
        timings: list[Timing] = []
        for name in list(self.variants)[:: -1 if number % 2 else 1]:
            wall, cpu = seconds(self.variants[name])
            times = len(self.x) / len(self.part) if name in IN_PART else 1.0
            cost = {"wall_s": wall * times, "cpu_s": cpu * times}
            timings.append({"repeat": number, "variant": name, **cost})
        return timings

    def certified(self, screen: Impl) -> float:
        """Share of rows that a screen could prove."""
        share = project_topk(self.x, self.w, self.k, impl=screen, stats=False).certified
        assert share is not None
        return share


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Wall-clock and processor seconds that `work` takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def peak_memory(work: Callable[[], object]) -> int:
    """Peak resident bytes while `work` runs, less those before; 0 where there is no /proc."""
    status = Path("/proc/self/statm")
    if not status.exists():
        work()
        return 0

    def resident() -> int:
        return int(status.read_text().split()[1]) * 4096

    before, seen, done = resident(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            seen[0] = max(seen[0], resident() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return seen[0]


def bandwidth(repeats: int = 5) -> float:
    """Bytes a second that torch reads from memory on all threads (a sum over 256 MiB)."""
    data = torch.ones(2**26)
    times = [seconds(data.sum)[0] for _ in range(repeats + 1)]
    return data.numel() * 4 / min(times[1:])


def _in_turn(work: Callable[[int], None], items: Iterable[int]) -> None:
    """`blocks.each` without its worker threads."""
    for item in items:
        work(item)


def _mm(x: Tensor, w: Tensor, columns: int, every: Callable[..., object]) -> None:
    """The bare product, tile by tile; `every` is `each` or `_in_turn`, over the blocks of rows."""
    buffers, blocks = Buffers(x.dtype, columns), cut(len(x))

    def block(index: int) -> None:
        part = x[slice(*blocks[index])]
        for slab in torch.split(w, columns):
            tile, _ = buffers.view(len(part), len(slab))
            torch.mm(part, slab.T, out=tile)

    every(block, range(len(blocks)))


def bare(numbers: Format, x: Tensor, w: Tensor) -> Callable[[], object]:
    """The bare product of a screen, tile by tile, of operands that are rounded before."""
    nothing, columns = torch.zeros(x.shape[1]), numbers.columns
    slabs = -(-len(w) // columns)
    rounded = numbers.round(x, nothing, STEP)
    right = numbers.right(numbers.round(w, nothing, columns, slabs), slabs)
    buffers = Buffers(numbers.tile, columns)

    def block(rows: slice) -> None:
        own = some_rows(rounded, rows)
        tile = buffers.view(len(own.values), columns)
        for slab in right:
            numbers.multiply(own, slab, tile)

    return lambda: each(block, starmap(slice, cut(len(x))))


def _two_topk(x: Tensor, w: Tensor, k: int) -> tuple[Tensor, ...]:
    logits = x @ w.T
    return (*logits.topk(k), *(-logits).topk(k))


def naive(x: Tensor, w: Tensor, k: int) -> tuple[Tensor, ...]:
    """The obvious code for everything `project_topk` returns, from dense logits."""
    logits = x @ w.T
    results = [*logits.topk(k), *(-logits).topk(k)]
    for signed in (logits, -logits):
        logp = signed.log_softmax(1)
        p = logp.exp()
        results += [signed.logsumexp(1), -(p * logp).sum(1), p.amax(1)]
    t = logits - logits.mean(1, keepdim=True)
    t2 = t * t  # pow(3) would be several times slower
    return (*results, t2.mean(1), (t2 * t).mean(1), (t2 * t2).mean(1))
