"""Kinds of data, each hard for a projection in its own way, for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]


def gaussian(n: int, vocabulary: int, d: int, seed: int = 0) -> Pair:
    """Vectors [n, d] and a read-out [V, d] whose logits have standard deviation 1."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator) / d**0.5
    return x, torch.randn(vocabulary, d, generator=generator)


def heavy_tailed(n: int, vocabulary: int, d: int, seed: int = 0) -> Pair:
    """Rows whose lengths spread like the square root of 1 / Cauchy, entries like Student's t_3."""
    x, w = gaussian(n, vocabulary, d, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    chi = torch.randn(3, vocabulary, d, generator=generator).square().mean(0).sqrt()
    lengths = torch.rand(vocabulary, 1, generator=generator).clamp_min(1e-3).rsqrt()
    return x, w / chi * lengths


def anisotropic(n: int, vocabulary: int, d: int, seed: int = 0) -> Pair:
    """Rows with a large common part and a steep spectrum, as in real unembeddings but worse."""
    x, w = gaussian(n, vocabulary, d, seed)
    spectrum = torch.arange(1, d + 1).float().rsqrt()
    return x, 3.0 * w[0] + w * spectrum * 4.0


def duplicated(n: int, vocabulary: int, d: int, seed: int = 0) -> Pair:
    """Every row of the read-out 64 times over, as untrained tokens are."""
    x, w = gaussian(n, -(-vocabulary // 64), d, seed)
    return x, w.repeat(64, 1)[:vocabulary]


def zeros(n: int, vocabulary: int, d: int, seed: int = 0) -> Pair:
    """Every other vector 0, and half of the read-out."""
    x, w = gaussian(n, vocabulary, d, seed)
    x[::2] = 0
    w[vocabulary // 2 :] = 0
    return x, w


def near_ties(n: int, vocabulary: int, d: int, seed: int = 0) -> Pair:
    """Rows that differ by less than float32 can tell apart in a dot product."""
    x, w = gaussian(n, vocabulary, d, seed)
    return x, w[:1] + 1e-6 * w


KINDS: dict[str, Callable[[int, int, int, int], Pair]] = {
    make.__name__.replace("_", "-"): make
    for make in (gaussian, heavy_tailed, anisotropic, duplicated, zeros, near_ties)
}
