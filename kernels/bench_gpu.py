"""`python -m interp.kernels.bench_gpu`: the GPU projection against the bare product, interleaved.

Variants over the same bfloat16 operands, rows in chunks of 4096:
    mm        the bare product, bfloat16 out (cuBLAS)
    mm_topk   the same, and two torch.topk over it: both sides, no statistics
    buffer, fused, wide    the whole projection with each producer, both sides, all statistics

By default the job of Llama-3.1-8B's up-projections, 458,752 x 4096 against 128,256. Prints one JSON
object: the versions that ran, seconds of every repeat, and of every variant at its fastest the rate
of the product inside in TFLOP/s and as a share of the bare product's; and the share of the rows of
the first chunk whose ids were proven.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor

from .triton_project import ROWS, Producer, project_triton

PRODUCERS: tuple[Producer, ...] = ("buffer", "fused", "wide")
VARIANTS = ("mm", "mm_topk", *PRODUCERS)


def operands(n: int, d: int, vocabulary: int, device: str) -> tuple[Tensor, Tensor]:
    """Gaussian bfloat16 vectors [n, d] and read-out [vocabulary, d]."""
    generator = torch.Generator(device).manual_seed(0)
    x = torch.randn(n, d, generator=generator, device=device).bfloat16()
    # logits of standard deviation 1, as a model's are about
    w = torch.randn(vocabulary, d, generator=generator, device=device).mul_(d**-0.5).bfloat16()
    return x, w


def compare(x: Tensor, w: Tensor, k: int, repeats: int) -> list[dict[str, float]]:
    """Seconds of every variant, one dict a repeat, after one warm-up."""

    def projected(producer: Producer) -> Callable[[], object]:
        return lambda: project_triton(x, w, k, ("top", "bottom"), True, producer)

    runs: dict[str, Callable[[], object]] = {
        "mm": lambda: _products(x, w, 0),
        "mm_topk": lambda: _products(x, w, k),
        **{producer: projected(producer) for producer in PRODUCERS},
    }
    times = []
    for _ in range(repeats + 1):
        times.append({name: _seconds(runs[name], x.device) for name in VARIANTS})
    return times[1:]


def _products(x: Tensor, w: Tensor, k: int) -> None:
    for part in torch.split(x, ROWS):
        logits = part @ w.T
        if k:
            logits.topk(k)
            logits.topk(k, largest=False)


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    gpu = device.type == "cuda"
    if gpu:
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if gpu:
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def report(x: Tensor, w: Tensor, k: int, repeats: int) -> dict[str, Any]:
    """What `main` prints."""
    times = compare(x, w, k, repeats)
    work = 2e-12 * x.numel() * len(w)
    rates = {name: work / min(t[name] for t in times) for name in VARIANTS}
    first = project_triton(x[:ROWS], w, k, ("top", "bottom"), False)
    name = torch.cuda.get_device_name(x.device) if x.is_cuda else "interpreter on the CPU"
    return {
        "device": name,
        "versions": {"torch": torch.__version__, "triton": triton.__version__},
        "seconds": times,
        "tflops": rates,
        "share_of_mm": {variant: rate / rates["mm"] for variant, rate in rates.items()},
        "certified": first.certified,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    sizes = {"n": 458_752, "d": 4096, "vocabulary": 128_256, "k": 16, "repeats": 5}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", default="cuda")
    given = parser.parse_args()
    x, w = operands(given.n, given.d, given.vocabulary, given.device)
    sys.stdout.write(json.dumps(report(x, w, given.k, given.repeats)) + "\n")


if __name__ == "__main__":
    main()
