"""The coupling coefficient: how one feature's score is expected to move with another's.

Source: Dunefsky & Cohan. For features y1, y2 at one site and x uniform on the sphere |x| = s where
it has the score x.y1 = k,

    E[x.y2] = k C(y1, y2),   C(y1, y2) = y1.y2 / |y1|^2,   C12 C21 = cos^2 t

and x.y2 lies between (|y2| / |y1|) (k cos t -+ |sin t| sqrt(s^2 |y1|^2 - k^2)) for every such x,
whatever its distribution. Real activations are on a sphere behind an RMSNorm, but not uniform on
it, so the measured best-fit slope (naive: `numpy.polyfit(score1, score2, 1)[0]`) may differ from C:
`couple` compares the two. C itself is `Directions.coupling`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor


class Interval(NamedTuple):
    """Of x.y2 given x.y1: its mean on the uniform sphere slice, and its extremes."""

    mean: Float[Tensor, ...]
    low: Float[Tensor, ...]
    high: Float[Tensor, ...]


def coupling_interval(
    y1: Float[Tensor, " d"],
    y2: Float[Tensor, " d"],
    k: Float[Tensor, ...] | float,
    s: Float[Tensor, ...] | float,
) -> Interval:
    """What the theorem says of x.y2 where |x| = s and x.y1 = k (any shape, broadcast).

    Raises:
        ValueError: |k| beyond s |y1|, which no such x has.
    """
    y1, y2 = y1.double(), y2.double()
    k, s = (torch.as_tensor(value, dtype=torch.float64) for value in (k, s))
    along = k / y1.norm()
    room = s.square() - along.square()
    if bool((room < -1e-9 * s.square()).any()):
        raise ValueError("a score beyond s |y1|, which no vector of that length has")
    middle = k * (y1 @ y2) / y1.square().sum()
    # |y2| |sin t|, without the loss of digits of sqrt(1 - cos^2)
    across = (y2 - (y1 @ y2) / y1.square().sum() * y1).norm()
    spread = across * room.clamp_min(0).sqrt()
    return Interval(middle, middle - spread, middle + spread)


class Fit(NamedTuple):
    """The best linear fit of one score by another."""

    slope: float
    r2: float


def best_fit(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> Fit:
    """Least squares of `other` on `one`, with an intercept."""
    a, b = one - one.mean(), other - other.mean()
    slope = float(a @ b / (a @ a))
    return Fit(slope, float((a @ b) ** 2 / ((a @ a) * (b @ b))))
