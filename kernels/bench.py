"""Benchmark of the fused projection: variants interleaved in one process, as ratios.

Variants, all over the same Gaussian vectors and read-out:
    mm        bare `torch.mm(out=)` of the kernel's tiles, parallel inside each product
    mm_workers    the same tiles, one worker thread per row block as in the kernel
    tiled     the fused kernel, both sides, all statistics
    naive     dense logits, two `topk`, the same statistics, in chunks of rows
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from .project import project_topk
from .tiled import COLUMNS, ROWS


def interleaved(
    d: int, vocabulary: int, rows: int, k: int, repeats: int, tick: Callable[[], None]
) -> list[dict[str, float]]:
    """Seconds of every variant, one dict a repeat, after one warm-up; `tick` after each repeat."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, d, generator=generator)
    w = torch.randn(vocabulary, d, generator=generator)
    variants: dict[str, Callable[[], None]] = {
        "mm": lambda: _mm(x, w),
        "mm_workers": lambda: _mm_workers(x, w),
        "tiled": lambda: _ignore(project_topk(x, w, k, impl="tiled")),
        "naive": lambda: _naive(x, w, k),
    }
    times = []
    for _ in range(repeats + 1):
        times.append({name: _seconds(variant) for name, variant in variants.items()})
        tick()
    return times[1:]


def _seconds(variant: Callable[[], None]) -> float:
    start = time.perf_counter()
    variant()
    return time.perf_counter() - start


def _ignore(_: object) -> None:
    pass


def _mm_block(x: Tensor, w: Tensor, start: int) -> None:
    part = x[start : start + ROWS]
    buffer = torch.empty(len(part) * COLUMNS)
    for slab in torch.split(w, COLUMNS):
        tile = buffer[: len(part) * len(slab)].view(len(part), len(slab))
        torch.mm(part, slab.T, out=tile)


def _mm(x: Tensor, w: Tensor) -> None:
    for start in range(0, len(x), ROWS):
        _mm_block(x, w, start)


def _mm_workers(x: Tensor, w: Tensor) -> None:
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(lambda start: _mm_block(x, w, start), range(0, len(x), ROWS)))
    torch.set_num_threads(threads)


def _naive(x: Tensor, w: Tensor, k: int) -> None:
    for part in torch.split(x, ROWS):
        logits = part @ w.T
        logits.topk(k)
        (-logits).topk(k)
        for signed in (logits, -logits):
            logp = signed.log_softmax(1)
            _ignore((-(logp.exp() * logp).sum(1), logp.max(1)))
        t = logits - logits.mean(1, keepdim=True)
        t2 = t * t  # pow(3) would be several times slower
        _ignore((t2.mean(1), (t2 * t).mean(1), (t2 * t2).mean(1)))
