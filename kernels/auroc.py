"""AUROC of many features against many binary labels: each feature is ranked once.

For feature f and label l, with ranks r from 1 (ties share their mean rank) and R+ = sum of the
ranks of the n+ samples that have the label (Mann and Whitney),

    AUROC = (R+ - n+ (n+ + 1) / 2) / (n+ n-)

All R+ are one matrix product of ranks and labels. Equivalent naive code:

    [[roc_auc_score(labels[:, j], features[:, i]) for j in range(l)] for i in range(f)]

Exact: ranks are multiples of 1/2 and their sums stay below 2^52, so in float64 nothing is rounded
before the last division. Samples where a feature is 0 share one rank, so only the others are
sorted: the sparse latents of an SAE cost little more than the product.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float
from numba import njit
from torch import Tensor

CHUNK = 64
"""Features whose ranks are held at once, [n, CHUNK] in float64."""


def rank_auroc(features: Float[Tensor, "n f"], labels: Bool[Tensor, "n l"]) -> Float[Tensor, "f l"]:
    """AUROC of every feature as a detector of every label, in float64.

    Features in float64 are ranked as they are, all others in float32. 0.5 is chance; below it, the
    feature's negation detects the label. NaN where no sample, or every sample, has the label.

    Raises:
        ValueError: shapes that do not match, no samples, features that are not finite, labels other
            than 0 and 1.
    """
    if features.ndim != 2 or labels.ndim != 2 or len(features) != len(labels):
        raise ValueError(
            f"expected features [n, f] and labels [n, l], got {list(features.shape)} and "
            f"{list(labels.shape)}"
        )
    if not len(features):
        raise ValueError("there are no samples to rank")
    precision = torch.float64 if features.dtype == torch.float64 else torch.float32
    values = features.detach().to("cpu", precision).numpy()
    if not np.isfinite(values.sum(dtype=np.float64)):
        raise ValueError("features hold a NaN or an infinity")
    marks = labels.detach().cpu().numpy().astype(np.float64)
    if not ((marks == 0) | (marks == 1)).all():
        raise ValueError(
            "labels must be yes or no, or 0 or 1: give each of several classes a column"
        )

    def sums(start: int) -> npt.NDArray[np.float64]:
        ranks = np.empty((min(CHUNK, values.shape[1] - start), len(values)))
        for row, column in zip(ranks, values.T[start : start + CHUNK], strict=True):
            _ranks(np.ascontiguousarray(column), row)
        rank_sums: npt.NDArray[np.float64] = ranks @ marks
        return rank_sums

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        parts = list(pool.map(sums, range(0, values.shape[1], CHUNK)))
    positive = marks.sum(0)
    negative = len(values) - positive
    total = np.concatenate(parts) if parts else np.empty((0, marks.shape[1]))
    with np.errstate(invalid="ignore", divide="ignore"):
        auroc = (total - positive * (positive + 1) / 2) / (positive * negative)
    auroc[:, (positive == 0) | (negative == 0)] = np.nan
    return torch.from_numpy(auroc)


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _ranks(values, ranks):  # type: ignore[no-untyped-def]
    """Ranks from 1, ties averaged, sorting only what is not zero."""
    n = values.shape[0]
    others = np.flatnonzero(values)
    order = others[np.argsort(values[others])]
    below = 0
    while below < order.shape[0] and values[order[below]] < 0:
        below += 1
    zeros = n - order.shape[0]
    ranks[:] = below + (zeros + 1) / 2.0
    start = 0
    while start < order.shape[0]:
        stop = start + 1
        while stop < order.shape[0] and values[order[stop]] == values[order[start]]:
            stop += 1
        # places start + 1 .. stop among the others, behind the zeros if they are positive
        rank = (start + 1 + stop) / 2.0 + (zeros if start >= below else 0)
        for i in range(start, stop):
            ranks[order[i]] = rank
        start = stop
