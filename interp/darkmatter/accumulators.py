"""What the one pass accumulates: sums over tokens, in memory that does not grow with their number.

For x, an SAE's error e and its nonlinear part n = e - xB (Engels, Smith and Tegmark, 'Decomposing
the dark matter of sparse autoencoders'), all [tokens, d]:

    FVU            = sum |e|^2 / sum |x - mean x|^2
    FVU_nonlinear  = sum |n|^2 / sum |x - mean x|^2
    R^2_vec        = mean over outputs j of 1 - sum n_j^2 / sum (e_j - mean e_j)^2
    R^2_vec, weighted: sums over j taken before dividing

Corrected for shrinkage: all of the error of an SAE that only scales, SAE(x) = alpha x, is linear.
So its output is first rescaled about its mean by the c of least squares (from the fitting part);
then e' = (1 - c)(x - mean x) + c (e - mean e), xB' = e' - n', and n' = c n exactly: no second pass.

The sums are kept for at most GROUPS groups of documents. Intervals resample groups
(`runs/intervals.py`): tokens of one document depend on each other, also in different contexts.
Naive equivalent: keep all tokens, and index them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.kernels.gram import Gram

from ..runs.intervals import GROUPS

Weights = Float[np.ndarray, "resamples groups"] | Float[Tensor, "resamples groups"]
UNIT = "document"
"""The independent unit that intervals resample, as tables name it."""


class SplitErrors(NamedTuple):
    """The errors of several SAEs on the same activations and their two parts, in float64."""

    x: Float[Tensor, "n d"]
    error: Float[Tensor, "n saes d"]
    linear: Float[Tensor, "n saes d"]
    nonlinear: Float[Tensor, "n saes d"]
    active: Float[Tensor, "n saes"]


class Shrinkage(NamedTuple):
    """How to rescale an SAE's output; from the contexts that B was fitted on."""

    scale: float
    """c: 1 for an SAE that does not shrink, and for one whose output never changes: there every c
    leaves the same error."""
    x_mean: Float[Tensor, " d"]
    e_mean: Float[Tensor, " d"]
    varies: bool = True
    """Whether the output does; if not, no scale is reported."""

    def corrected(self, x: Float[Tensor, "n d"], e: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The error of the rescaled output."""
        return (1 - self.scale) * (x - self.x_mean) + self.scale * (e - self.e_mean)


def shrinkage(gram: Gram) -> Shrinkage:
    """The scale c that minimises sum |(x - mean x) - c (x_hat - mean x_hat)|^2, x_hat = x - e."""
    xx, xe, ee = gram.xx.trace(), gram.xy.trace(), gram.yy.sum()
    squared = xx - 2 * xe + ee
    varies = float(squared) > 1e-12 * float(xx)
    scale = float((xx - xe) / squared) if varies else 1.0
    return Shrinkage(scale, gram.x_mean, gram.y_mean, varies)


@dataclass
class VectorSums:
    """Sums over tokens, by group of documents, of each output of x, e and n."""

    count: Float[Tensor, " groups"]
    x: Float[Tensor, "groups 2 d"]
    """Sums of x and x^2."""
    e: Float[Tensor, "groups saes 4 d"]
    """Sums of e, e^2, x e and n^2."""

    @classmethod
    def empty(cls, saes: int, d: int) -> VectorSums:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(GROUPS, *shape, dtype=torch.float64)

        return cls(zeros(), zeros(2, d), zeros(saes, 4, d))

    def add(self, document: Int[Tensor, " n"], split: SplitErrors) -> None:
        for number in torch.unique(document).tolist():
            rows, group = document == number, number % GROUPS
            x, e, n = split.x[rows], split.error[rows], split.nonlinear[rows]
            self.count[group] += len(x)
            self.x[group] += torch.stack([x.sum(0), x.square().sum(0)])
            sums = (e.sum(0), e.square().sum(0), (x[:, None] * e).sum(0), n.square().sum(0))
            self.e[group] += torch.stack(sums, 1)

    def measures(
        self, sae: int, shrink: Shrinkage, weights: Weights
    ) -> dict[str, Float[Tensor, " resamples"]]:
        """Every measure of one SAE, for every weighting of the groups."""
        weights = torch.as_tensor(weights)
        count = (weights @ self.count)[:, None]
        x1, x2 = torch.einsum("rg,gkd->krd", weights, self.x)
        e1, e2, xe, n2 = torch.einsum("rg,gkd->krd", weights, self.e[:, sae])
        variance = (x2 - x1.square() / count).sum(1)
        c, mx, me, varies = shrink
        scaled = (
            (1 - c) ** 2 * (x2 - 2 * mx * x1 + count * mx.square())
            + 2 * c * (1 - c) * (xe - me * x1 - mx * e1 + count * mx * me)
            + c**2 * (e2 - 2 * me * e1 + count * me.square())
        )
        scaled_mean = (1 - c) * (x1 - count * mx) + c * (e1 - count * me)
        measures = {"scale": torch.full_like(variance, c if varies else torch.nan)}
        for suffix, error, mean, rest in (
            ("", e2, e1, n2),
            ("_corrected", scaled, scaled_mean, c**2 * n2),
        ):
            spread = error - mean.square() / count
            measures[f"fvu{suffix}"] = error.sum(1) / variance
            measures[f"fvu_nonlinear{suffix}"] = rest.sum(1) / variance
            measures[f"r2_vector{suffix}"] = _share(rest, spread).nanmean(1)
            measures[f"r2_vector_weighted{suffix}"] = _share(rest.sum(1), spread.sum(1))
        return measures


@dataclass
class ScalarSums:
    """Second moments of named numbers per token (with a constant one), by group of documents."""

    names: tuple[str, ...]
    moments: Float[Tensor, "groups p p"]

    @classmethod
    def empty(cls, names: tuple[str, ...]) -> ScalarSums:
        size = len(names) + 1
        return cls(names, torch.zeros(GROUPS, size, size, dtype=torch.float64))

    def add(self, document: Int[Tensor, " n"], values: Float[Tensor, "n p"]) -> None:
        whole = torch.cat([torch.ones(len(values), 1).double(), values.double()], 1)
        for number in torch.unique(document).tolist():
            rows = whole[document == number]
            self.moments[number % GROUPS] += rows.T @ rows

    def _total(self, weights: Weights, names: tuple[str, ...]) -> Float[Tensor, "resamples q q"]:
        at = [0, *(1 + self.names.index(name) for name in names)]
        return torch.einsum("rg,gpq->rpq", torch.as_tensor(weights), self.moments[:, at][:, :, at])

    def mean(self, name: str, weights: Weights) -> Float[Tensor, " resamples"]:
        m = self._total(weights, (name,))
        return m[:, 0, 1] / m[:, 0, 0]

    def r2_of_prediction(
        self, target: str, prediction: str, weights: Weights
    ) -> Float[Tensor, " resamples"]:
        """1 - sum (t - p)^2 / sum (t - mean t)^2, of a prediction made elsewhere."""
        m = self._total(weights, (target, prediction))
        error = m[:, 1, 1] - 2 * m[:, 1, 2] + m[:, 2, 2]
        return _share(error, m[:, 1, 1] - m[:, 0, 1].square() / m[:, 0, 0])

    def r2_of_regression(
        self, target: str, given: tuple[str, ...], weights: Weights
    ) -> Float[Tensor, " resamples"]:
        """R^2 of the least squares of one number on a few others and a constant, in sample."""
        m = self._total(weights, (target, *given))
        centred = m - m[:, :, :1] * m[:, :1, :] / m[:, :1, :1]
        inner, cross = centred[:, 2:, 2:], centred[:, 2:, 1]
        explained = (cross[:, None] @ torch.linalg.pinv(inner, hermitian=True))[:, 0]
        rest = centred[:, 1, 1] - (explained * cross).sum(1)
        return _share(rest, centred[:, 1, 1])


def _share(rest: Tensor, total: Tensor) -> Tensor:
    """1 - rest / total; NaN where there is nothing to explain."""
    varies = total > 0
    return torch.where(varies, 1 - rest / torch.where(varies, total, 1.0), torch.nan)
