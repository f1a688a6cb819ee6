"""How far off a logit of the GPU's bfloat16 product may be, and how many candidates that leaves.

    E = |x - x'| |w'| + |x| |w - w'| + gamma |x'| |w'|      (maxima over w; x', w' in bfloat16)

gamma is (d + 64) 2^-25. Hopper's tensor cores behave as if they cut off, where IEEE float32
rounds, once every 16 terms: up to d 2^-27 |x'| |w'|, half of that if the sum grows evenly. The
worst that an H200 did, over five kinds of data and d from 64 to 16,384, was .06 d 2^-24 (operands
that are all positive), an eighth of gamma; `tests/kernels/test_triton.py` asks for half of gamma
where it runs on a GPU. The 64 cover few terms, and the rounding of `triton_select.py`'s level.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .triton_lengths import lengths

LARGEST = torch.finfo(torch.float32).max
SMALL = 8192
"""Vocabularies of which all logits may be candidates."""


class Readout(NamedTuple):
    """The read-out, its bfloat16 copy, and what bounds their errors."""

    exact: Tensor
    rounded: Tensor
    mean: Tensor
    """Mean row, float32."""
    longest: float
    furthest: float
    """Largest |w'| and |w - w'|."""


def prepare(readout: Tensor) -> Readout:
    rounded = readout.bfloat16()
    mean = readout.mean(0, dtype=torch.float32)
    near, lost, _ = lengths(readout, rounded, mean)
    return Readout(readout, rounded, mean, float(near.max()), float(lost.max()))


def gamma(d: int) -> float:
    return (d + 64) * 2.0**-25


def errors(near: Tensor, lost: Tensor, d: int, w: Readout) -> Tensor:
    """[n] float64 E of rows of d numbers with |x'| = near and |x - x'| = lost."""
    error = lost * w.longest + (near + lost) * w.furthest + gamma(d) * near * w.longest
    tiny = d * 2.0**-124 * (1 + near + lost + w.longest)  # subnormal numbers may be flushed to zero
    # a float32 sum that may overflow bounds nothing
    return (1.001 * error + tiny).masked_fill(~(near * w.longest < LARGEST), torch.inf)


def room(k: int, d: int, vocabulary: int) -> int:
    """Candidates a row and side that are made room for: twice what Gaussian logits need, of which
    those within 2 E of the k-th grow as exp(2 z E / sigma), z = 3.7; a few sqrt(k) for chance. All
    of a small vocabulary, which may have fewer bins than k."""
    screen = gamma(d) + 0.0034  # the second for operands that bfloat16 rounds
    wanted = k * math.exp(2 * 3.7 * screen * math.sqrt(d)) + 4.0 * math.sqrt(k) + 8.0
    least = vocabulary if vocabulary <= SMALL else min(math.ceil(2 * wanted), vocabulary)
    return 1 << (least - 1).bit_length()
