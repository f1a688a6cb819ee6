"""Linear read-outs of many labels at once: multinomial logistic regression, all tasks one problem.

For activations x [n, d] and T tasks of K classes (64 tiles of three states, for example):

    p(y_t = k | x) = softmax_k(W_t x + b_t)
    minimise  mean over samples of  -sum_t log p(y_t | x)  +  ridge / 2 * ||W||^2

The problem is convex and, for ridge > 0, has one solution for W. L-BFGS starts from zero, so a fit
is deterministic and needs no seed. All tasks share each pass over the data as one matrix product.
Naive code, equal up to the optimiser's tolerance:

    for t in range(T):
        LogisticRegression(C=1 / (ridge * n)).fit(x, y[:, t])

With two classes scikit-learn fits one row w, and this probe two rows, -w / 2 and w / 2, whose
squares sum to half of w's. There C is 2 / (ridge * n), and w is coef_[1] - coef_[0].

Two things make the fit fast without changing the solution. Gradients are computed directly (softmax
minus one-hot), chunk by chunk, so memory stays small. And the descent runs in coordinates in which
the curvature, cov(x) / 4 + ridge, is about one in every direction, so that activations with a few
huge directions need no more passes than others. Samples much further out than most say nothing
about the curvature where the others lie (their p is 0 or 1), so they count less in it.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import _check_sample_weight, check_is_fitted
from torch import Tensor

CHUNK = 8192
"""Samples in one matrix product."""
FAR = 8.0
"""Samples further from the middle than this many times the median distance count less in the
coordinates of the descent."""
Values = Float[Tensor, "n d"] | Float[np.ndarray, "n d"]
Labels = Int[Tensor, "n tasks"] | Int[np.ndarray, "n tasks"]
Weights = Float[Tensor, " n"] | Float[np.ndarray, " n"]


class LinearProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A scikit-learn classifier for x [n, d] and labels [n] or [n, tasks], numpy or torch.

    Computes in float32, and in float64 where that does not reach the tolerance.

    Attributes after `fit`, without the task axis for labels [n]:
        classes_ [K]: the labels, the same for every task
        coef_ [tasks, K, d], intercept_ [tasks, K]: centred over classes (their sum is zero)
        n_iter_: passes of the optimiser
        converged_: whether the gradient came within `tol`
    """

    def __init__(self, ridge: float = 1e-4, max_iter: int = 200, tol: float = 1e-4) -> None:
        self.ridge = ridge
        self.max_iter = max_iter
        self.tol = tol

    def fit(self, x: Values, y: Labels, sample_weight: Weights | None = None) -> LinearProbe:
        """Fit every task.

        Warns with scikit-learn's `ConvergenceWarning` where it did not converge.

        Args:
            sample_weight: how much each sample counts in the mean of the losses; 2 is as good as
                the sample twice.

        Raises:
            ValueError: shapes that do not match, a NaN or an infinity, fewer than two classes,
                weights that are negative or all 0, or ridge <= 0.
        """
        features, labels = _features(x), np.asarray(y)
        if labels.ndim not in (1, 2) or len(labels) != len(features):
            raise ValueError(f"x {list(features.shape)} and y {list(labels.shape)} do not match")
        if self.ridge <= 0:
            raise ValueError(f"ridge is {self.ridge}: it must be positive")
        if (labels != labels).any():
            raise ValueError("y holds a NaN: leave samples without a label out")
        weights = _check_sample_weight(sample_weight, features.numpy(), ensure_non_negative=True)
        self.classes_, which = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError("the labels are all the same: there is nothing to fit")
        self._single = labels.ndim == 1
        self.n_features_in_ = features.shape[1]
        codes = torch.from_numpy(which.reshape(len(labels), -1))
        counts = torch.from_numpy(weights / weights.mean(dtype=np.float64)).double()
        coef, intercept, self.n_iter_, self.converged_ = _descend(
            features, codes, counts, len(self.classes_), self.ridge, self.max_iter, self.tol
        )
        if not self.converged_:
            warnings.warn(
                f"the probe stopped after {self.n_iter_} passes, before it converged: raise "
                "max_iter or the ridge",
                ConvergenceWarning,
                stacklevel=2,
            )
        self.coef_ = coef[0] if self._single else coef
        self.intercept_ = intercept[0] if self._single else intercept
        return self

    def decision_function(self, x: Values) -> Float[np.ndarray, "n tasks K"]:
        """Logits of every class; with two classes, of both.

        Raises:
            NotFittedError: `fit` has not run.
            ValueError: x of another width than it was fitted on, or that is not finite.
        """
        check_is_fitted(self)
        features = _features(x)
        if features.shape[1] != self.n_features_in_:
            raise ValueError(
                f"x has {features.shape[1]} features, but the probe was fitted on "
                f"{self.n_features_in_}"
            )
        weight = torch.as_tensor(self.coef_).to(features).flatten(0, -2)
        logits = features @ weight.T + torch.as_tensor(self.intercept_).to(features).flatten()
        return logits.view(len(features), *self.intercept_.shape).numpy()

    def predict_proba(self, x: Values) -> Float[np.ndarray, "n tasks K"]:
        return torch.from_numpy(self.decision_function(x)).softmax(-1).numpy()

    def predict(self, x: Values) -> Int[np.ndarray, "n tasks"]:
        best = self.decision_function(x).argmax(-1)
        labels: np.ndarray = self.classes_[best]
        return labels

    def score(self, x: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy over all samples and tasks."""
        right = self.predict(x) == np.asarray(y)
        return float(np.average(right.reshape(len(right), -1).mean(1), weights=sample_weight))


def _features(x: Values) -> Tensor:
    """x [n, d] on the CPU: in float64 if it is given so, else in float32."""
    values = torch.as_tensor(x).detach().cpu()
    values = values if values.dtype == torch.float64 else values.float()
    if values.ndim != 2 or not values.numel():
        raise ValueError(f"expected x [n, d] with something in it, got {list(values.shape)}")
    if not torch.isfinite(torch.stack(torch.aminmax(values))).all():
        raise ValueError("x holds a NaN or an infinity")
    return values


def _descend(
    x: Tensor,
    codes: Tensor,
    counts: Tensor,
    n_classes: int,
    ridge: float,
    max_iter: int,
    tol: float,
) -> tuple[np.ndarray, np.ndarray, int, bool]:
    """(coef [tasks, K, d], intercept [tasks, K], passes, whether they were enough) of the minimum;
    counts [n] weight the samples, 1 on average."""
    n_tasks, d = codes.shape[1], x.shape[1]
    columns = codes + n_classes * torch.arange(n_tasks)
    rows, goal = (n_tasks * n_classes, d + 1), tol / np.sqrt(d)

    def objective(
        flat: np.ndarray, there: _Coordinates, white: Tensor, precision: torch.dtype
    ) -> tuple[float, np.ndarray]:
        own = torch.from_numpy(flat).view(rows)
        loss, gradient = _loss(white, columns, counts, own, n_tasks, precision)
        inner = own[:, :d] @ there.gram
        gradient[:, :d] += ridge * inner
        penalty = 0.5 * ridge * float((inner * own[:, :d]).sum())
        return loss + penalty, gradient.flatten().numpy()

    weights, curvature = torch.zeros(rows, dtype=torch.float64), _first_curvature(x, counts)
    precision, passes = torch.float32, 0
    while True:
        there = _coordinates(x, curvature, ridge)
        start, given = there.enter(weights).flatten().numpy(), (there, there.samples(x), precision)
        options = {"maxiter": max_iter - passes, "gtol": goal, "ftol": 0.0, "maxcor": 20}
        found = minimize(objective, start, given, jac=True, method="L-BFGS-B", options=options)
        weights, passes = there.leave(torch.from_numpy(found.x).view(rows)), passes + found.nit
        # to scipy a loss that no longer falls is a success, but it may only be rounded
        converged = bool(np.abs(found.jac).max() <= goal)
        stuck = precision == torch.float64 and not found.nit
        if converged or stuck or passes >= max_iter:
            break
        # float32 or these coordinates were not good enough: take those of the curvature found here
        precision, curvature = torch.float64, _curvature(x, counts, weights, n_tasks)
    weights = weights.view(n_tasks, n_classes, d + 1)
    centred = (weights - weights.mean(1, keepdim=True)).to(x).numpy()
    return centred[..., :d], centred[..., d], int(passes), converged


class _Coordinates(NamedTuple):
    """Those of the descent: (x - mean) whiten, in which the curvature is about one, in float64."""

    mean: Float[Tensor, " d"]
    whiten: Float[Tensor, "d d"]
    inverse: Float[Tensor, "d d"]

    @property
    def gram(self) -> Float[Tensor, "d d"]:
        """||W||^2 is the sum of v gram v over the rows v of W in these coordinates."""
        return self.whiten.T @ self.whiten

    def samples(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """x there, in float32."""
        mean, whiten = self.mean.to(x), self.whiten.to(x)
        return torch.cat([(part - mean) @ whiten for part in torch.split(x, CHUNK)]).float()

    def enter(self, weights: Float[Tensor, "rows d+1"]) -> Float[Tensor, "rows d+1"]:
        """Weights (and, last, their intercepts) there."""
        coef, intercept = weights[:, :-1], weights[:, -1] + weights[:, :-1] @ self.mean
        return torch.cat([coef @ self.inverse, intercept[:, None]], 1)

    def leave(self, weights: Float[Tensor, "rows d+1"]) -> Float[Tensor, "rows d+1"]:
        """The inverse of `enter`."""
        coef = weights[:, :-1] @ self.whiten.T
        return torch.cat([coef, (weights[:, -1] - coef @ self.mean)[:, None]], 1)


def _coordinates(x: Tensor, curvature: Tensor, ridge: float) -> _Coordinates:
    """Coordinates for a loss whose second derivative along a sample's logits is curvature [n]."""
    parts = list(zip(torch.split(x, CHUNK), torch.split(curvature, CHUNK), strict=True))
    total = curvature.sum().clamp_min(torch.finfo(torch.float64).tiny)
    mean = torch.stack([own @ part.double() for part, own in parts]).sum(0) / total
    second = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
    for part, own in parts:
        apart = part.double() - mean
        second += apart.T @ (own[:, None] * apart) / len(x)
    values, vectors = torch.linalg.eigh(second)
    size = (values.clamp_min(0) + ridge).sqrt()
    return _Coordinates(mean, vectors / size, vectors * size)


def _first_curvature(x: Tensor, counts: Tensor) -> Tensor:
    """[n] a quarter, the maximum of p (1 - p); less of samples far out, whose p is 0 or 1 soon."""
    middle = x[counts > 0].median(0).values
    distance = torch.cat([(p - middle).double().norm(dim=1) for p in torch.split(x, CHUNK)])
    reach = FAR * distance[counts > 0].median()
    return counts / 4 * torch.where(distance > reach, reach / distance, 1.0) ** 2


def _curvature(x: Tensor, counts: Tensor, weights: Tensor, n_tasks: int) -> Tensor:
    """[n] mean of p (1 - p) over all tasks and classes at these weights."""
    parts = []
    for part in torch.split(x, CHUNK):
        logits = part.double() @ weights[:, :-1].T + weights[:, -1]
        p = logits.view(len(part), n_tasks, -1).softmax(-1).flatten(1)
        parts.append((p * (1 - p)).mean(1))
    return counts * torch.cat(parts)


def _loss(
    x: Tensor,
    columns: Tensor,
    counts: Tensor,
    weights: Tensor,
    n_tasks: int,
    precision: torch.dtype,
) -> tuple[float, Tensor]:
    """Mean cross-entropy, summed over tasks, and its gradient [tasks * K, d + 1]."""
    matrix, bias = weights[:, :-1].T.to(precision).contiguous(), weights[:, -1].to(precision)
    total, gradient = 0.0, torch.zeros_like(weights)
    parts = zip(*(torch.split(each, CHUNK) for each in (x, columns, counts)), strict=True)
    for part, chosen, count in parts:
        part, own = part.to(precision), count.to(precision)[:, None]
        logits = torch.addmm(bias, part, matrix).view(len(part), n_tasks, -1)
        log_p = logits.log_softmax(-1).flatten(1)
        total -= float((own * log_p.gather(1, chosen)).sum(dtype=torch.float64))
        error = log_p.exp_()
        error.scatter_add_(1, chosen, torch.full_like(error[:, :1], -1.0).expand_as(chosen))
        error *= own
        gradient[:, :-1] += error.T @ part
        gradient[:, -1] += error.sum(0, dtype=torch.float64)
    return total / len(x), gradient / len(x)
