"""What a projection returns of every row, whichever implementation ran, and its last formulas."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

Side = Literal["top", "bottom"]
SIDES: tuple[Side, ...] = ("top", "bottom")


class Extremes(NamedTuple):
    """One side of every row. For the bottom side the softmax is that of the negated logits."""

    ids: Int[Tensor, "n k"]
    """Token ids, most extreme first; of equal logits the lowest id comes first."""
    logits: Float[Tensor, "n k"]
    """Their logits (not negated)."""
    logsumexp: Float[Tensor, " n"] | None = None
    """log sum exp of the (signed) logits, nats."""
    entropy: Float[Tensor, " n"] | None = None
    """Entropy of their softmax, nats."""
    max_prob: Float[Tensor, " n"] | None = None
    """Probability of the first token."""


class Moments(NamedTuple):
    """Population moments of each row's V logits; skewness and kurtosis are 0 in a constant row."""

    mean: Float[Tensor, " n"]
    var: Float[Tensor, " n"]
    """In float64: the square of a float32 may be none."""
    skewness: Float[Tensor, " n"]
    kurtosis: Float[Tensor, " n"]
    """Excess kurtosis: 0 for a Gaussian."""


class Projection(NamedTuple):
    """What `project_topk` keeps of each row; parts that were not asked for are None."""

    top: Extremes | None
    bottom: Extremes | None
    moments: Moments | None
    impl: str
    """Which implementation ran."""
    certified: float | None = None
    """Share of the rows whose ids were proven without searching the row again."""


def softmax_statistics(
    y_best: Tensor, log_total: Tensor, mean_y: Tensor, reference: Tensor
) -> tuple[Tensor, ...]:
    """logsumexp, entropy and largest probability [n] of scores.

    From the y of the best one, the log of sum e and the mean of y weighted with e, where e = exp(y)
    and y = score - reference, all float64.
    """
    logsumexp = reference + log_total
    # with p = e / total:  H = log total - E[y], clipped because rounding can pass the two ends
    entropy = (log_total - mean_y).clamp_min(0.0)
    largest = (y_best - log_total).exp().clamp_max(1.0)
    return logsumexp.float(), entropy.float(), largest.float()


def central_moments(
    powers: Float[Tensor, "n 4"], mean: Float[Tensor, " n"], unit: Float[Tensor, " n"]
) -> Moments:
    """From mean powers of t = logit / unit - centre, where centre is nearly the mean, and the mean
    itself, all float64."""
    p1, p2, p3, p4 = powers.unbind(1)
    var = (p2 - p1**2).clamp_min(0.0)
    third = p3 - 3 * p1 * p2 + 2 * p1**3
    fourth = p4 - 4 * p1 * p3 + 6 * p1**2 * p2 - 3 * p1**4
    safe = torch.where(var > 0, var, torch.inf)
    kurtosis = torch.where(var > 0, fourth / safe**2 - 3.0, 0.0)
    return Moments(mean.float(), var * unit**2, (third / safe**1.5).float(), kurtosis.float())
