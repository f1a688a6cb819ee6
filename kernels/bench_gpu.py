"""`python -m interp.kernels.bench_gpu`: the GPU projection against the bare product, interleaved.

Variants over the same bfloat16 operands, rows in chunks of 4096:
    mm        the bare product into a float32 buffer (cuBLAS)
    mm_topk   the same, and two torch.topk over it: both sides, no statistics
    buffer, fused    the whole projection with either producer, both sides, all statistics

By default the job of Llama-3.1-8B's up-projections, 458,752 x 4096 against 128,256. Prints one JSON
object: seconds of every repeat, and the rate of the product inside each, in TFLOP/s.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from .triton_project import ROWS, Producer, project_triton

VARIANTS = ("mm", "mm_topk", "buffer", "fused")


def compare(
    n: int, d: int, vocabulary: int, k: int, repeats: int, device: str
) -> list[dict[str, float]]:
    """Seconds of every variant, one dict a repeat, after one warm-up."""
    generator = torch.Generator(device).manual_seed(0)
    x = torch.randn(n, d, generator=generator, device=device).bfloat16()
    w = torch.randn(vocabulary, d, generator=generator, device=device).bfloat16()

    def projected(producer: Producer) -> Callable[[], object]:
        return lambda: project_triton(x, w, k, ("top", "bottom"), True, producer)

    runs: dict[str, Callable[[], object]] = {
        "mm": lambda: _products(x, w, 0),
        "mm_topk": lambda: _products(x, w, k),
        "buffer": projected("buffer"),
        "fused": projected("fused"),
    }
    times = []
    for _ in range(repeats + 1):
        times.append({name: _seconds(runs[name], device) for name in VARIANTS})
    return times[1:]


def _products(x: Tensor, w: Tensor, k: int) -> None:
    for part in torch.split(x, ROWS):
        logits = part @ w.T
        if k:
            logits.topk(k)
            logits.topk(k, largest=False)


def _seconds(run: Callable[[], object], device: str) -> float:
    gpu = torch.device(device).type == "cuda"
    if gpu:
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if gpu:
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    sizes = {"n": 458_752, "d": 4096, "vocabulary": 128_256, "k": 16, "repeats": 5}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", default="cuda")
    given = parser.parse_args()
    times = compare(given.n, given.d, given.vocabulary, given.k, given.repeats, given.device)
    work = 2e-12 * given.n * given.d * given.vocabulary
    best = {name: min(t[name] for t in times) for name in VARIANTS}
    rates = {name: round(work / seconds, 4) for name, seconds in best.items()}
    sys.stdout.write(json.dumps({"seconds": times, "tflops": rates}) + "\n")


if __name__ == "__main__":
    main()
