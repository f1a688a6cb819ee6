"""Bound on the error of a logit of the GPU's bfloat16 product, and room for the candidates.

    E = |x - x'| |w'| + |x| |w - w'| + gamma |x'| |w'|      (maxima over w; x', w' in bfloat16)

gamma is (d + 64) 2^-25. Where IEEE float32 rounds, Hopper's tensor cores behave as if they cut off,
once every 16 terms. The error is up to d 2^-27 |x'| |w'|, and half of that if the sum grows evenly.
The worst on an H200, over five kinds of data and d from 64 to 16,384, was .06 d 2^-24 (operands
that are all positive), an eighth of gamma. On a GPU, `tests/kernels/test_triton.py` asks for half
of gamma. The 64 covers products of few terms, and the rounding of `triton_select.py`'s level.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .triton_lengths import lengths

SMALL = 8192
"""Largest vocabulary of which all logits may be candidates."""


class Readout(NamedTuple):
    """The read-out, its bfloat16 copy, and what bounds their errors."""

    exact: Tensor
    """Of which exact scores are: as given, with products in another unit (`scaling.py`)."""
    rounded: Tensor
    mean: Tensor
    """Mean row, float64."""
    longest: float
    """Largest |w'|."""
    largest_loss: float
    """Largest |w - w'|."""
    typical: float
    """Median |w'|."""
    typical_loss: float
    """Median |w - w'|."""


def prepare(readout: Tensor) -> Readout:
    rounded = readout.bfloat16()
    mean = readout.mean(0, dtype=torch.float64)
    ones = torch.ones(len(readout), dtype=torch.float64, device=readout.device)
    length, loss, _ = lengths(readout, ones, rounded, mean)
    bounds = (length.max(), loss.max(), length.median(), loss.median())
    return Readout(readout, rounded, mean, *map(float, bounds))


def gamma(d: int) -> float:
    return (d + 64) * 2.0**-25


def errors(length: Tensor, loss: Tensor, d: int, w: Readout) -> Tensor:
    """[n] float64 E of rows of d numbers with |x'| = length and |x - x'| = loss, [n] each."""
    error = loss * w.longest + (length + loss) * w.largest_loss + gamma(d) * length * w.longest
    # subnormal numbers may be flushed to zero
    tiny = d * 2.0**-124 * (1 + length + loss + w.longest)
    return 1.001 * error + tiny


def noise(length: Tensor, loss: Tensor, d: int, w: Readout) -> Tensor:
    """[n] float64 typical error of a row's logits: of sums, and of rounding the operands."""
    rounding: Tensor = (loss * w.typical + (length + loss) * w.typical_loss) / math.sqrt(d)
    return rounding + 2.0**-24 * length * w.typical


def room(k: int, d: int, vocabulary: int) -> int:
    """Candidates of a row and side for which there is room: a power of 2.

    Twice what Gaussian logits need. The number of those within 2 E of the k-th grows as
    exp(2 z E / sigma), z = 3.7; a few sqrt(k) are for chance. All of a small vocabulary, which may
    have fewer bins than k.
    """
    screen = gamma(d) + 0.0034  # the second for operands that bfloat16 rounds
    wanted = k * math.exp(2 * 3.7 * screen * math.sqrt(d)) + 4.0 * math.sqrt(k) + 8.0
    least = vocabulary if vocabulary <= SMALL else min(math.ceil(2 * wanted), vocabulary)
    return 1 << (least - 1).bit_length()
