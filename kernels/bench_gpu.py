"""`python -m interp.kernels.bench_gpu`: the GPU projection against the bare product, interleaved.

Variants over the same bfloat16 operands:
    mm          the bare product, bfloat16 out (cuBLAS), in chunks of 4,096 rows
    mm_topk     the same, and two torch.topk over it: both sides, no statistics
    projected   the whole projection: both sides, all statistics

The default job is that of Llama-3.1-8B's up-projections, 458,752 x 4096 against 128,256. Prints one
JSON object:
    device, versions    what ran
    seconds             of every variant in every repeat
    tflops, share_of_mm rate of every variant in its median repeat, of the product's operations only
    certified           share of the rows whose ids were proven without a second search
    exactness, errors   whether ids are float64's and how far off the statistics are, on the hard
                        kinds of data of `data.py` in float32 (8,192 x 576)
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
import triton
from torch import Tensor

from .accuracy import exactness, statistic_errors
from .data import KINDS
from .project import Impl
from .projection import SIDES
from .triton_project import project_triton

CHUNK = 4096
"""Rows of one bare product: the fastest of 2,048, 4,096 and 8,192 on an H200."""
VARIANTS = ("mm", "mm_topk", "projected")


def operands(n: int, d: int, vocabulary: int, device: str) -> tuple[Tensor, Tensor]:
    """Gaussian bfloat16 vectors [n, d] and read-out [vocabulary, d]."""
    generator = torch.Generator(device).manual_seed(0)
    x = torch.randn(n, d, generator=generator, device=device).bfloat16()
    # logits of standard deviation 1, as a model's are about
    w = torch.randn(vocabulary, d, generator=generator, device=device).mul_(d**-0.5).bfloat16()
    return x, w


def _products(x: Tensor, w: Tensor, k: int) -> None:
    for part in torch.split(x, CHUNK):
        logits = part @ w.T
        if k:
            logits.topk(k)
            logits.topk(k, largest=False)


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda _: None
    wait(device)
    start = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - start


def report(x: Tensor, w: Tensor, k: int, repeats: int) -> dict[str, Any]:
    """What `main` prints of the times, after one warm-up."""
    runs: dict[str, Callable[[], object]] = {
        "mm": lambda: _products(x, w, 0),
        "mm_topk": lambda: _products(x, w, k),
        "projected": lambda: project_triton(x, w, k, SIDES, True),
    }
    times = [
        {name: _seconds(runs[name], x.device) for name in VARIANTS} for _ in range(repeats + 1)
    ][1:]
    work = 2e-12 * x.numel() * len(w)
    rates = {name: work / median(t[name] for t in times) for name in VARIANTS}
    name = torch.cuda.get_device_name(x.device) if x.is_cuda else "interpreter on the CPU"
    return {
        "device": name,
        "versions": {"torch": torch.__version__, "triton": triton.__version__},
        "seconds": times,
        "tflops": rates,
        "share_of_mm": {variant: rate / rates["mm"] for variant, rate in rates.items()},
        "certified": project_triton(x, w, k, SIDES, False).certified,
    }


def accuracy(rows: int, device: str, vocabulary: int = 8192, d: int = 576) -> dict[str, Any]:
    """Exactness on all kinds of data, k = 1, 16 and 256; errors on two kinds, k = 16."""
    impls: tuple[Impl, ...] = ("triton",)
    ks = tuple(sorted({min(k, vocabulary) for k in (1, 16, 256)}))
    shares, errors = {}, {}
    for kind, make in KINDS.items():
        x, w = (operand.to(device) for operand in make(rows, vocabulary, d, 0))
        shares[kind] = exactness(x, w, ks, impls)
        if kind in ("gaussian", "anisotropic"):
            errors[kind] = statistic_errors(x, w, min(16, vocabulary), impls)
    return {"exactness": shares, "errors": errors}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    sizes = {"n": 458_752, "d": 4096, "vocabulary": 128_256, "k": 16, "repeats": 5, "rows": 192}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", default="cuda")
    given = parser.parse_args()
    x, w = operands(given.n, given.d, given.vocabulary, given.device)
    measured = report(x, w, given.k, given.repeats)
    measured |= accuracy(given.rows, given.device) if given.rows else {}
    sys.stdout.write(json.dumps(measured) + "\n")


if __name__ == "__main__":
    main()
