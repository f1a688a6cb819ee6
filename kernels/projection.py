"""What a projection returns of every row, whichever implementation ran."""

from __future__ import annotations

from typing import Literal, NamedTuple

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
    logsumexp: Float[Tensor, " n"] | None
    """log sum exp of the (signed) logits, nats."""
    entropy: Float[Tensor, " n"] | None
    """Entropy of their softmax, nats."""
    max_prob: Float[Tensor, " n"] | None
    """Probability of the first token."""


class Moments(NamedTuple):
    """Population moments of each row's V logits; skewness and kurtosis are 0 in a constant row."""

    mean: Float[Tensor, " n"]
    var: Float[Tensor, " n"]
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
