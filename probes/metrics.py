"""How good a read-out is: unexplained variance, and the F1 of activations as detectors.

    FVU     sum ||x - x_hat||^2 / sum ||x - mean(x)||^2, sums over all samples
    F1      2 TP / (2 TP + FP + FN) of 'feature > threshold' as a detector of a label

Every FVU of the workbench is this one. Four mistakes are common: scaling x and x_hat differently,
taking the variance about zero, a mean over batches of different sizes, and a mean of per-sample
ratios. Here both sums run over the same samples, about their mean, and are divided once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.compiled import njit

LEVELS = tuple(k / 10 for k in range(10))
"""Thresholds tried, as shares of a feature's largest activation (BoardGameEval's)."""


def fvu(x: Float[Tensor, "n d"], x_hat: Float[Tensor, "n d"]) -> float:
    """Fraction of variance unexplained: 0 is perfect, 1 is no better than the mean.

    Raises:
        ValueError: shapes that differ, or samples without variance.
    """
    if x.shape != x_hat.shape or x.ndim != 2:
        raise ValueError(f"x {list(x.shape)} and x_hat {list(x_hat.shape)} do not match")
    values = x.double()
    total = (values - values.mean(0)).square().sum()
    if total == 0:
        raise ValueError("the samples are all the same: their variance is zero")
    return float((values - x_hat.double()).square().sum() / total)


class Detections(NamedTuple):
    """Counts of 'feature > threshold' over samples, thresholds rising along T."""

    thresholds: Float[np.ndarray, "f T"]
    active: npt.NDArray[np.int64]
    """Samples above the threshold [f, T]."""
    both: npt.NDArray[np.int64]
    """Samples above the threshold that have the label [f, T, l]."""
    positives: npt.NDArray[np.int64]
    """Samples that have the label [l]."""

    @property
    def precision(self) -> Float[np.ndarray, "f T l"]:
        """0 where the feature never exceeds the threshold."""
        shares: np.ndarray = self.both / np.maximum(self.active, 1)[..., None]
        return shares

    @property
    def f1(self) -> Float[np.ndarray, "f T l"]:
        """0 where the feature never exceeds the threshold and no sample has the label."""
        f1: np.ndarray = 2 * self.both / np.maximum(self.active[..., None] + self.positives, 1)
        return f1


def detections(
    features: Float[np.ndarray, "n f"],
    labels: Bool[np.ndarray, "n l"],
    thresholds: Float[np.ndarray, "f T"] | None = None,
) -> Detections:
    """Count every feature, at every threshold, against every label, in one pass over the samples.

    Only activations above a feature's lowest threshold take time, so sparse features are fast.
    Naive code: for each f, t: above = features[:, f] > thresholds[f, t];
    active = above.sum(), both = (above[:, None] & labels).sum(0).

    Args:
        thresholds: rising along T; by default LEVELS of each feature's largest activation (of 0 if
            that is negative).

    Raises:
        ValueError: different numbers of samples, activations that are not finite, or labels other
            than 0 and 1.
    """
    values = np.ascontiguousarray(features, dtype=np.float32)
    if len(values) != len(labels):
        raise ValueError(f"{len(values)} samples with features, {len(labels)} with labels")
    if not ((labels == 0) | (labels == 1)).all():
        raise ValueError(
            "labels must be yes or no, or 0 or 1: give each of several classes a column"
        )
    marks = np.ascontiguousarray(labels, dtype=np.uint8)
    if not np.isfinite(values.sum(dtype=np.float64)):
        raise ValueError("features hold a NaN or an infinity")
    if thresholds is None:
        thresholds = np.maximum(values.max(0), 0)[:, None] * np.array(LEVELS, np.float32)
    levels = np.ascontiguousarray(thresholds, dtype=np.float32)
    active = np.zeros(levels.shape, np.int32)
    both = np.zeros((*levels.shape, marks.shape[1]), np.int32)
    _count(values, marks, levels, active, both)

    def above(counts: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        return counts[:, ::-1].cumsum(1, dtype=np.int64)[:, ::-1]

    return Detections(levels, above(active), above(both), marks.sum(0, dtype=np.int64))


@njit(
    "void(float32[:, ::1], uint8[:, ::1], float32[:, ::1], int32[:, ::1], int32[:, :, ::1])",
    cache=True,
    nogil=True,
)
def _count(values, marks, levels, active, both):  # type: ignore[no-untyped-def]
    """Histogram of the highest threshold each activation exceeds."""
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            value = values[i, j]
            if value > levels[j, 0]:
                t = 0
                while t + 1 < levels.shape[1] and value > levels[j, t + 1]:
                    t += 1
                active[j, t] += 1
                row = both[j, t]
                for k in range(marks.shape[1]):
                    row[k] += marks[i, k]


def as_array(x: Tensor) -> np.ndarray:
    """A tensor's values for numpy."""
    values: np.ndarray = x.detach().to("cpu", torch.float32).numpy()
    return values


def claims(
    features: Float[np.ndarray, "n f"], thresholds: Float[np.ndarray, "f l"]
) -> Bool[np.ndarray, "n l"]:
    """Whether any feature exceeds its threshold for a label (inf: it never claims the label).

    Naive code: (features[:, :, None] > thresholds).any(1).
    """
    values = np.ascontiguousarray(features, dtype=np.float32)
    levels = np.ascontiguousarray(thresholds, dtype=np.float32)
    claimed = np.zeros((len(values), levels.shape[1]), np.uint8)
    _claim(values, levels, levels.min(1), claimed)
    return claimed.astype(bool)


@njit("void(float32[:, ::1], float32[:, ::1], float32[::1], uint8[:, ::1])", cache=True, nogil=True)
def _claim(values, levels, lowest, claimed):  # type: ignore[no-untyped-def]
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            value = values[i, j]
            if value > lowest[j]:
                for k in range(levels.shape[1]):
                    claimed[i, k] |= value > levels[j, k]
