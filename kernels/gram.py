"""Least squares over a stream: second moments gathered part by part, solved and scored afterwards.

For x [n, dx] and y [n, dy], a `Gram` holds n, both means, and the centred sums

    xx = sum (x - mx)(x - mx)^T    xy = sum (x - mx)(y - my)^T    yy = sum (y - my)^2 (per output)

in float64, in memory that does not grow with n; parts merge exactly (Chan et al. 1979). From them
come the regression of y on x (with or without intercept, any ridge) and its errors, on the same
samples or on others. A fit of one Gram is scored with the sums of another, so no sample is read
twice. Equivalent naive code, with an intercept:

    B = lstsq([x, 1], y);  r2 = 1 - ((y - [x, 1] @ B)**2).sum(0) / ((y - y.mean(0))**2).sum(0)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Fit(NamedTuple):
    """Predicts y as x @ weights + intercept."""

    weights: Float[Tensor, "dx dy"]
    intercept: Float[Tensor, " dy"]
    """Zero where none was asked for."""
    method: str
    """"cholesky", or "least norm" where the second moments of x are singular."""

    def __call__(self, x: Float[Tensor, "n dx"]) -> Float[Tensor, "n dy"]:
        predicted: Tensor = x.to(self.weights) @ self.weights + self.intercept
        return predicted


@dataclass(frozen=True)
class Gram:
    """Centred second moments of x and y; made by `of`, joined by `merge`."""

    count: int
    x_mean: Float[Tensor, " dx"]
    y_mean: Float[Tensor, " dy"]
    xx: Float[Tensor, "dx dx"]
    xy: Float[Tensor, "dx dy"]
    yy: Float[Tensor, " dy"]

    @classmethod
    def of(cls, x: Float[Tensor, "n dx"], y: Float[Tensor, "n dy"]) -> Gram:
        """The moments of one batch of at least one sample; every product is taken in float64.

        Raises:
            ValueError: shapes that do not match, no samples, or values that are not finite.
        """
        if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or not len(x):
            raise ValueError(
                f"expected x [n, dx] and y [n, dy], n > 0, got {list(x.shape)} and {list(y.shape)}"
            )
        x, y = x.detach().double(), y.detach().double()
        x_mean, y_mean = x.mean(0), y.mean(0)
        x, y = x - x_mean, y - y_mean
        gram = cls(len(x), x_mean, y_mean, x.T @ x, x.T @ y, y.square().sum(0))
        if not torch.isfinite(torch.cat([gram.xx.diagonal(), gram.yy])).all():
            raise ValueError("x or y holds a NaN or an infinity")
        return gram

    def merge(self, other: Gram) -> Gram:
        """The moments of the samples of both."""
        n = self.count + other.count
        weight = self.count * other.count / n
        dx, dy = other.x_mean - self.x_mean, other.y_mean - self.y_mean
        return Gram(
            n,
            self.x_mean + dx * (other.count / n),
            self.y_mean + dy * (other.count / n),
            self.xx + other.xx + weight * torch.outer(dx, dx),
            self.xy + other.xy + weight * torch.outer(dx, dy),
            self.yy + other.yy + weight * dy.square(),
        )

    def solve(self, ridge: float = 0.0, intercept: bool = True) -> Fit:
        """argmin over B of sum |y - xB - b|^2 + ridge * v * n * |B|^2 (b is not penalised), with v
        the mean variance of the inputs: x in other units gives the same predictions.

        By Cholesky, one refinement step included; where the second moments are singular (fewer
        samples than inputs, inputs that depend on each other), the solution of least norm, from
        their eigenvectors with eigenvalues above dx * eps times the largest.

        Raises:
            ValueError: a negative ridge.
        """
        if ridge < 0:
            raise ValueError(f"ridge is {ridge}: it must not be negative")
        xx, xy = self.xx, self.xy
        if not intercept:
            xx = xx + self.count * torch.outer(self.x_mean, self.x_mean)
            xy = xy + self.count * torch.outer(self.x_mean, self.y_mean)
        scale = self.xx.trace() / len(xx)  # n v
        penalised = xx + ridge * scale * torch.eye(len(xx), dtype=xx.dtype, device=xx.device)
        weights, method = _solve(penalised, xy)
        offset = self.y_mean - self.x_mean @ weights
        return Fit(weights, offset if intercept else torch.zeros_like(offset), method)

    def squared_error(self, fit: Fit) -> Float[Tensor, " dy"]:
        """sum (y - fit(x))^2 of every output, over these samples."""
        product = (fit.weights * (self.xx @ fit.weights - 2 * self.xy)).sum(0)
        offset = self.y_mean - self.x_mean @ fit.weights - fit.intercept
        return (self.yy + product + self.count * offset.square()).clamp_min(0.0)

    def r2(self, fit: Fit) -> Float[Tensor, " dy"]:
        """1 - error / variance about the mean, per output; NaN where an output does not vary."""
        varies = self.yy > 0
        ratio = self.squared_error(fit) / torch.where(varies, self.yy, 1.0)
        return torch.where(varies, 1.0 - ratio, torch.nan)

    def fvu(self, fit: Fit) -> float:
        """Fraction of y's variance unexplained: errors of all outputs over variances of all."""
        total = self.yy.sum()
        return float(self.squared_error(fit).sum() / total) if total > 0 else float("nan")


def _solve(xx: Tensor, xy: Tensor) -> tuple[Tensor, str]:
    eps = torch.finfo(xx.dtype).eps
    # scaled to a unit diagonal, so that inputs of very different lengths do not look singular
    scale = xx.diagonal().sqrt().clamp_min(torch.finfo(xx.dtype).tiny)
    scaled = xx / scale[:, None] / scale
    factor, failed = torch.linalg.cholesky_ex(scaled)
    smallest = factor.diagonal().square().min() if len(xx) else torch.ones(1)
    if not int(failed) and float(smallest) > len(xx) * eps:
        right = xy / scale[:, None]
        solution = torch.cholesky_solve(right, factor)
        solution = solution + torch.cholesky_solve(right - scaled @ solution, factor)
        return solution / scale[:, None], "cholesky"
    values, vectors = torch.linalg.eigh(xx)
    kept = values > len(xx) * eps * values[-1].clamp_min(0)
    basis = vectors[:, kept]
    return basis @ ((basis.T @ xy) / values[kept][:, None]), "least norm"
