"""What the GPU path knows of every row, whose statistics are in doubt, and a check of a few."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import triton_scan as scan
from .exact import NOTHING, SUM
from .projection import SIDES, Projection
from .results import ONE
from .scaling import Operands, soft
from .triton_error import Readout, errors, noise
from .triton_lengths import lengths


class RowResults(NamedTuple):
    """Results of all rows, in the unit of the products; a side not asked for is left empty."""

    ids: Tensor
    """[n, 2, k] int64"""
    logits: Tensor
    """[n, 2, k] float64"""
    best: Tensor
    """[n, 2] float64, the first score"""
    counts: Tensor
    """[n, 2] int32, numbers of candidates"""
    sums: Tensor
    """[n, 10] float64, see `triton_scan.merge_kernel`"""
    error: Tensor
    """[n] float64, E of `triton_error.py`"""
    noise: Tensor
    """[n] float64, see `triton_error.noise`"""
    mean: Tensor
    """[n] float64, of all of a row's logits"""
    centre: Tensor
    """[n] float32, the same mean, taken off before powers are summed"""
    factor: Tensor
    """[n] float64: what a product of both operands as given is multiplied with"""
    soft: Tensor
    """[n] float32, what differences of logits are in nats"""
    lost: Tensor
    """[n] bool, see `exact.LOST`"""

    @staticmethod
    def empty(given: Operands, rounded: Tensor, w: Readout, k: int) -> RowResults:
        x, (n, d) = given.vectors, given.vectors.shape
        length, loss, mean = lengths(x, given.factor.double(), rounded, w.mean)
        unit = torch.from_numpy(given.unit).to(x.device)
        return RowResults(
            torch.empty(n, 2, k, dtype=torch.int64, device=x.device),
            torch.empty(n, 2, k, dtype=torch.float64, device=x.device),
            torch.zeros(n, 2, dtype=torch.float64, device=x.device),
            torch.zeros(n, 2, dtype=torch.int32, device=x.device),
            torch.empty(n, scan.SUMS, dtype=torch.float64, device=x.device),
            errors(length, loss, d, w),
            noise(length, loss, d, w),
            mean,
            mean.float(),
            1.0 / unit,
            torch.from_numpy(soft(given.unit)).to(x.device),
            torch.zeros(n, dtype=torch.bool, device=x.device),
        )


def in_doubt(
    given: Operands, results: RowResults, sides: tuple[str, ...], proven: Tensor, limit: float
) -> tuple[np.ndarray, np.ndarray]:
    """Whether each row's moments may be off by more than `limit` standard deviations, and its
    sides' statistics by more than as many nats: [n] each.

    As on the CPU (`exact._replace`), but what is known to be exact is the probability of the first
    k only. The sums hold the largest logit's 1, which may have been taken off.
    """
    first, second = (results.sums[:, 6:8] / len(given.readout)).unbind(1)
    # the worst token's error, and what it may be of a row that no exact logits have corrected
    worst = results.error / math.sqrt(given.vectors.shape[1])
    noise = torch.maximum(results.noise, worst / ONE)
    noisy = noise > limit * (second - first.square()).clamp_min(0).sqrt()
    noisy |= results.lost
    doubtful = ~proven & (worst * results.soft > ONE * limit)
    noise = results.noise * results.soft
    for side in map(SIDES.index, sides):
        largest, total = results.sums[:, side].double(), results.sums[:, 2 + 2 * side]
        scores = results.logits[:, side] * (1 - 2 * side) - largest[:, None]
        exact = (results.soft[:, None] * scores).exp().sum(1) / total
        ceiling = len(given.readout) * (results.soft * scores[:, -1]).exp() / total
        others = torch.where(proven, (1 - exact).clamp_min(0), 1.0)
        lost = others * noise + SUM * total.clamp_min(1.0) / total
        known = (lost <= limit) & (noise < 0.5)
        doubtful |= ~known & ~(proven & (ceiling < NOTHING))
    return noisy.cpu().numpy(), doubtful.cpu().numpy()


def check_twin(few: Operands, w: Readout, projection: Projection, error: Tensor) -> None:
    """Compare a few rows, the first ones, with dense float64 logits; error [n] is their E.

    The proof trusts the screen. This check does not, because no test may have seen this compiler or
    device.

    Raises:
        RuntimeError: an id that is not among the best, or a wrong logsumexp.
    """
    x = few.exact_rows()
    error, unit = error[: len(x), None], torch.from_numpy(few.unit).to(x.device)[:, None]
    products = torch.cat([x @ part.double().T for part in torch.split(w.exact, 8192)], 1)
    # float64 products round too, and may add in a different order
    close = 1e-8 * error + 1e-300
    for sign, side in ((1, projection.top), (-1, projection.bottom)):
        if side is None:
            continue
        ids = side.ids[: len(x)]
        want = (sign * products).topk(ids.shape[1], dim=1).values
        wrong = ((sign * products).gather(1, ids) - want).abs() > close
        if side.logsumexp is not None:
            whole = (sign * products * unit).logsumexp(1)[:, None]
            # infinities of one sign agree: their difference, NaN, is not more than anything
            drift = (side.logsumexp[: len(x), None].double() - whole.float().double()).abs()
            wrong = wrong | (drift > error * unit + 1e-5 * (1 + whole.abs()))
        if wrong.any():
            raise RuntimeError("the Triton projection differs from dense logits: use impl='naive'")
