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
huge directions need no more passes than others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, ClassifierMixin
from torch import Tensor

CHUNK = 8192
"""Samples in one matrix product."""
Values = Float[Tensor, "n d"] | Float[np.ndarray, "n d"]
Labels = Int[Tensor, "n tasks"] | Int[np.ndarray, "n tasks"]


class LinearProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A scikit-learn classifier for x [n, d] and labels [n] or [n, tasks], numpy or torch.

    Attributes after `fit`, without the task axis for labels [n]:
        classes_ [K]: the labels, the same for every task
        coef_ [tasks, K, d], intercept_ [tasks, K]: centred over classes (their sum is zero)
        n_iter_: passes of the optimiser
    """

    def __init__(self, ridge: float = 1e-4, max_iter: int = 200, tol: float = 1e-4) -> None:
        self.ridge = ridge
        self.max_iter = max_iter
        self.tol = tol

    def fit(self, x: Values, y: Labels) -> LinearProbe:
        """Fit every task.

        Raises:
            ValueError: shapes that do not match, fewer than two classes, or ridge <= 0.
        """
        features, labels = torch.as_tensor(x).float(), np.asarray(y)
        if features.ndim != 2 or labels.ndim not in (1, 2) or len(labels) != len(features):
            raise ValueError(f"x {list(features.shape)} and y {list(labels.shape)} do not match")
        if self.ridge <= 0:
            raise ValueError(f"ridge is {self.ridge}: it must be positive")
        self.classes_, which = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError("the labels are all the same: there is nothing to fit")
        self._single = labels.ndim == 1
        self.n_features_in_ = features.shape[1]
        codes = torch.from_numpy(which.reshape(len(labels), -1))
        coef, intercept, self.n_iter_ = _descend(
            features, codes, len(self.classes_), self.ridge, self.max_iter, self.tol
        )
        self.coef_ = coef[0] if self._single else coef
        self.intercept_ = intercept[0] if self._single else intercept
        return self

    def decision_function(self, x: Values) -> Float[np.ndarray, "n tasks K"]:
        """Logits of every class; with two classes, of both."""
        features = torch.as_tensor(x).float()
        weight = torch.as_tensor(self.coef_).float().flatten(0, -2)
        logits = features @ weight.T + torch.as_tensor(self.intercept_).float().flatten()
        return logits.view(len(features), *self.intercept_.shape).numpy()

    def predict_proba(self, x: Values) -> Float[np.ndarray, "n tasks K"]:
        return torch.from_numpy(self.decision_function(x)).softmax(-1).numpy()

    def predict(self, x: Values) -> Int[np.ndarray, "n tasks"]:
        labels: np.ndarray = self.classes_[self.decision_function(x).argmax(-1)]
        return labels

    def score(self, x: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy over all samples and tasks."""
        right = self.predict(x) == np.asarray(y)
        return float(np.average(right.reshape(len(right), -1).mean(1), weights=sample_weight))


def _descend(
    x: Tensor, codes: Tensor, n_classes: int, ridge: float, max_iter: int, tol: float
) -> tuple[np.ndarray, np.ndarray, int]:
    """(coef [tasks, K, d], intercept [tasks, K], iterations) of the minimum."""
    n_tasks, d = codes.shape[1], x.shape[1]
    mean, whiten = _coordinates(x, ridge)
    white = (x - mean) @ whiten.float()
    columns = codes + n_classes * torch.arange(n_tasks)
    gram = whiten.T @ whiten  # ||W||^2 = sum of v gram v over the rows v of `weights`

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = torch.from_numpy(flat).view(n_tasks * n_classes, d + 1)
        loss, gradient = _loss(white, columns, weights, n_tasks)
        inner = weights[:, :d] @ gram
        gradient[:, :d] += ridge * inner
        penalty = 0.5 * ridge * float((inner * weights[:, :d]).sum())
        return loss + penalty, gradient.flatten().numpy()

    start = np.zeros(n_tasks * n_classes * (d + 1))
    options = {"maxiter": max_iter, "gtol": tol / np.sqrt(d), "ftol": 0.0, "maxcor": 20}
    solution = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    weights = torch.from_numpy(solution.x).view(n_tasks, n_classes, d + 1)
    coef = weights[..., :d] @ whiten.T
    intercept = weights[..., d] - coef @ mean.double()
    centred = (coef - coef.mean(1, keepdim=True), intercept - intercept.mean(1, keepdim=True))
    return centred[0].float().numpy(), centred[1].float().numpy(), int(solution.nit)


def _coordinates(x: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Mean [d] and (cov(x) / 4 + ridge)^(-1/2) [d, d]; the maximum of p (1 - p) is a quarter."""
    mean = x.double().mean(0)
    covariance = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
    for part in torch.split(x, CHUNK):
        apart = part.double() - mean
        covariance += apart.T @ apart / len(x)
    values, vectors = torch.linalg.eigh(covariance)
    return mean.float(), vectors * (values.clamp_min(0) / 4 + ridge).rsqrt()


def _loss(x: Tensor, columns: Tensor, weights: Tensor, n_tasks: int) -> tuple[float, Tensor]:
    """Mean cross-entropy, summed over tasks, and its gradient [tasks * K, d + 1]."""
    matrix, bias = weights[:, :-1].T.float().contiguous(), weights[:, -1].float()
    total, gradient = 0.0, torch.zeros_like(weights)
    for part, chosen in zip(torch.split(x, CHUNK), torch.split(columns, CHUNK), strict=True):
        logits = torch.addmm(bias, part, matrix).view(len(part), n_tasks, -1)
        log_p = logits.log_softmax(-1).flatten(1)
        total -= float(log_p.gather(1, chosen).sum(dtype=torch.float64))
        error = log_p.exp_()
        error.scatter_add_(1, chosen, torch.full_like(error[:, :1], -1.0).expand_as(chosen))
        gradient[:, :-1] += error.T @ part
        gradient[:, -1] += error.sum(0, dtype=torch.float64)
    return total / len(x), gradient / len(x)
