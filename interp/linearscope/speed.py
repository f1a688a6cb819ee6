"""What an interpreter costs, as a multiple of the plain network's time.

`forward`: LI(x) against f(x). `record`: making the interpreter, with its checks, against f(x).
`rows`: 64 rows of A against 64 plain vector-Jacobian products. Each is the median of the ratios of
several rounds, with its quartiles; the two sides of a ratio run one after the other.
"""

from __future__ import annotations

import statistics
from typing import Any

import torch

from ..timing import Pair, turns_of
from .interpreter import interpret
from .networks import open_network
from .pictures import middle_square, open_picture

ROWS = 64


def pairs_of(network: str) -> dict[str, Pair]:
    """For one picture on the CPU."""
    opened = open_network(network)
    net = opened.module.requires_grad_(False)
    x0 = opened.prepare(middle_square(open_picture("chelsea"), opened.size or 64))
    system = interpret(net, x0)
    leaf = x0.clone().requires_grad_(True)
    out = net(leaf)
    units = torch.eye(out.numel())[:ROWS].view(-1, *out.shape[1:])

    def products() -> None:
        for unit in units:
            torch.autograd.grad(out, leaf, unit[None], retain_graph=True)

    @torch.no_grad()
    def plain() -> None:
        net(x0)

    one, page = "the plain network's pass", "linearscope"
    return {
        "forward": Pair("running an interpreter", one, page, lambda: system(x0), plain),
        "record": Pair(
            "recording an interpreter, with its checks", one, page, lambda: interpret(net, x0),
            plain,
        ),
        "rows": Pair(
            f"{ROWS} rows of an interpreter's A", f"{ROWS} vector-Jacobian products", page,
            lambda: system.rows(torch.arange(ROWS)), products,
        ),
    }  # fmt: skip


def pairs(_: str) -> list[Pair]:
    """For `interp bench all`: of EfficientNet-Lite0."""
    return list(pairs_of("efficientnet-lite0").values())


def measure(model: str = "efficientnet-lite0", rounds: int = 7) -> dict[str, Any]:
    """Ratios to the plain network."""
    metrics: dict[str, Any] = {"rounds": rounds}
    for name, pair in pairs_of(model).items():
        ratios = [turn.ours_s / turn.bare_s for turn in turns_of(pair, rounds)]
        low, median, high = statistics.quantiles(ratios, n=4)
        metrics |= {name: median, f"{name}, quartiles": f"{low:.2f}-{high:.2f}"}
    return metrics
