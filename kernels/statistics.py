"""Count, mean and variance of vectors, gathered part by part."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Statistics:
    """Count, mean and variance of vectors, in float64; parts merge exactly (Chan et al. 1979):

    M = M_a + M_b + delta delta^T n_a n_b / n   for M the sum of (x - mean)(x - mean)^T
    """

    count: int
    mean: Float[Tensor, ...]
    squares: Float[Tensor, ...]
    """Sum of squared deviations from the mean."""
    products: Float[Tensor, "d d"] | None = None
    """M, of the flattened vectors; only where the second moment was asked for."""

    @classmethod
    def of(cls, x: Float[Tensor, "tokens ..."], second_moment: bool = False) -> Statistics:
        """The statistics of one batch of at least one vector."""
        if not len(x):
            raise ValueError("the batch has no vectors")
        values = x.detach().double()
        mean = values.mean(0)
        apart = values - mean
        flat = apart.flatten(1)
        return cls(len(x), mean, apart.square().sum(0), flat.T @ flat if second_moment else None)

    def merge(self, other: Statistics) -> Statistics:
        """The statistics of the vectors of both, with the second moment if both have it."""
        count = self.count + other.count
        delta = other.mean - self.mean
        weight = self.count * other.count / count
        products = None
        if self.products is not None and other.products is not None:
            flat = delta.flatten()
            products = self.products + other.products + weight * torch.outer(flat, flat)
        return Statistics(
            count,
            self.mean + delta * (other.count / count),
            self.squares + other.squares + weight * delta.square(),
            products,
        )

    @property
    def var(self) -> Float[Tensor, ...]:
        """Population variance (divided by the count)."""
        return self.squares / self.count

    @property
    def covariance(self) -> Float[Tensor, "d d"]:
        if self.products is None:
            raise ValueError("the second moment was not collected: pass second_moment=True to `of`")
        return self.products / self.count

    @property
    def second_moment(self) -> Float[Tensor, "d d"]:
        """Mean of x x^T over the flattened vectors."""
        flat = self.mean.flatten()
        return self.covariance + torch.outer(flat, flat)
