"""What an interpreter costs, as a multiple of the plain network's time.

`forward`: LI(x) against f(x). `record`: making the interpreter, with its checks, against f(x).
`rows`: 64 rows of A against 64 plain vector-Jacobian products. Each is the median of the ratios of
several rounds, with its quartiles; the two sides of a ratio run one after the other.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch

from interp.kernels.bench import seconds

from ..progress import progress
from .interpreter import interpret
from .networks import open_network
from .pictures import middle_square, open_picture

ROWS = 64


def measure(model: str = "efficientnet-lite0", rounds: int = 7) -> dict[str, Any]:
    """Ratios to the plain network, for one picture on the CPU."""
    network = open_network(model)
    net = network.module.requires_grad_(False)
    x0 = network.prepare(middle_square(open_picture("chelsea"), network.size or 64))
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

    pairs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "forward": (lambda: system(x0), plain),
        "record": (lambda: interpret(net, x0), plain),
        "rows": (lambda: system.rows(torch.arange(ROWS)), products),
    }
    metrics: dict[str, Any] = {"rounds": rounds}
    with progress("measure", rounds * len(pairs), "rounds") as advance:
        for name, (ours, theirs) in pairs.items():
            ratios = []
            for _ in range(rounds):
                ratios.append(seconds(ours)[0] / seconds(theirs)[0])
                advance(1, name)
            low, median, high = statistics.quantiles(ratios, n=4)
            metrics |= {name: median, f"{name}, quartiles": f"{low:.2f}-{high:.2f}"}
    return metrics
