"""The naive twin of the fused projection: the dense product, a chunk of rows at a time.

Runs on any device. The tests compare with it in float64.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .projection import Extremes, Moments, Projection

CHUNK = 256
"""Rows whose dense logits are held at once."""


def project_dense(
    vectors: Tensor, readout: Tensor, k: int, sides: tuple[str, ...], stats: bool
) -> Projection:
    """See `project_topk`; computes in the dtype it is given."""
    parts = [_project(chunk, readout, k, sides, stats) for chunk in torch.split(vectors, CHUNK)]
    joined: Projection = _join(*parts)
    return joined


def exact_ids(vectors: Tensor, readout: Tensor, k: int) -> dict[str, Tensor]:
    """[n, k] ids of both sides as float64 ranks them; of equal logits the lowest id comes first.

    Equal rows of the read-out are multiplied once. A matrix product may sum in another order at its
    edges, and so give them different logits.
    """
    distinct, place = torch.unique(readout, dim=0, return_inverse=True)
    logits = (vectors.double() @ distinct.double().T)[:, place]
    order = {"top": logits, "bottom": -logits}
    return {
        side: scores.sort(dim=1, descending=True, stable=True).indices[:, :k]
        for side, scores in order.items()
    }


def _join(*parts: Any) -> Any:
    """Concatenate tensors, those of NamedTuples field by field; anything else is all the same."""
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    return type(parts[0])(*map(_join, *parts)) if isinstance(parts[0], tuple) else parts[0]


def _project(x: Tensor, readout: Tensor, k: int, sides: tuple[str, ...], stats: bool) -> Projection:
    logits = x @ readout.T
    return Projection(
        top=_extremes(logits, k, 1, stats) if "top" in sides else None,
        bottom=_extremes(logits, k, -1, stats) if "bottom" in sides else None,
        moments=_moments(logits) if stats else None,
        impl="naive",
    )


def _extremes(logits: Tensor, k: int, sign: int, stats: bool) -> Extremes:
    signed = sign * logits
    # a stable sort, unlike topk, keeps equal logits in the order of their ids
    scores, ids = signed.sort(dim=1, descending=True, stable=True)
    scores, ids = scores[:, :k], ids[:, :k]
    if not stats:
        return Extremes(ids, sign * scores)
    logp = signed.log_softmax(1)
    entropy = -(logp.exp() * logp).sum(1)
    return Extremes(ids, sign * scores, signed.logsumexp(1), entropy, logp.max(1).values.exp())


def _moments(logits: Tensor) -> Moments:
    mean = logits.mean(1)
    t = logits - mean[:, None]
    var = t.square().mean(1)
    std = var.sqrt().clamp_min(torch.finfo(var.dtype).tiny)
    skewness = (t / std[:, None]).pow(3).mean(1)
    kurtosis = (t / std[:, None]).pow(4).mean(1) - 3.0
    constant = var == 0
    return Moments(
        mean, var, skewness.masked_fill(constant, 0.0), kurtosis.masked_fill(constant, 0.0)
    )
