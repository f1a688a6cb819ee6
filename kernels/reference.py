"""The naive twin of the fused projection: the dense product, a chunk of rows at a time.

Runs on any device. The tests compare with it in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.special import entr

from .blocks import each
from .projection import Extremes, Moments, Projection
from .scaling import SOFT, Operands, scaled

CHUNK = 256
"""Rows whose dense logits are held at once."""
FEW, COLUMNS = 64, 4096
"""Rows of dense float64 logits, and rows of the read-out, that are held at once in float64."""


def project_dense(
    vectors: Tensor, readout: Tensor, k: int, sides: tuple[str, ...], stats: bool
) -> Projection:
    """See `project_topk`; computes in the dtype it is given."""
    whole = scaled(vectors, readout)
    chunks = np.split(np.arange(len(vectors)), range(CHUNK, max(len(vectors), 1), CHUNK))
    parts = [_project(whole.only(chunk), k, sides, stats) for chunk in chunks]
    joined: Projection = _join(*parts)
    return joined


def in_float64(operands: Operands, sides: tuple[str, ...]) -> Projection:
    """The first id of each side and all statistics of a few rows, from float64 products.

    A row whose logits may all be the same, within what each of these sums may be off by, has the
    moments of a constant one.
    """
    rows = np.arange(len(operands.unit))
    some = (operands.only(rows[start : start + FEW]) for start in range(0, len(rows), FEW))
    # torch's own threads would cut the sums of a single row as many ways as there are
    every = each if operands.vectors.device.type == "cpu" else map
    joined: Projection = _join(*every(lambda few: _in_float64(few, sides), some))
    return joined


def _in_float64(operands: Operands, sides: tuple[str, ...]) -> Projection:
    x = operands.exact_rows()
    products, lost = x.new_empty(2, len(x), len(operands.given))
    for start in range(0, len(operands.given), COLUMNS):
        slab, some = operands.given[start : start + COLUMNS].double(), slice(start, start + COLUMNS)
        products[:, some] = x @ slab.T
        # of each logit by itself: one that loses much says nothing of the others
        lost[:, some] = x.shape[1] * 2.0**-52 * (x.abs() @ slab.abs().T)
    found = from_products(products, operands.unit, 1, sides, True)
    assert found.moments is not None
    mean, *others = found.moments
    constant = (products - lost).amax(1) <= (products + lost).amin(1)
    return found._replace(moments=Moments(mean, *(m.masked_fill(constant, 0.0) for m in others)))


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


def _project(operands: Operands, k: int, sides: tuple[str, ...], stats: bool) -> Projection:
    logits = operands.rows(slice(None)) @ operands.readout.T
    return from_products(logits, operands.unit, k, sides, stats)


def from_products(
    products: Tensor, unit: np.ndarray, k: int, sides: tuple[str, ...], stats: bool
) -> Projection:
    """The projection of dense products [n, V], of which a logit is `unit` [n] times as large."""
    units = torch.from_numpy(unit).to(products.device)
    return Projection(
        top=_extremes(products, units, k, 1, stats) if "top" in sides else None,
        bottom=_extremes(products, units, k, -1, stats) if "bottom" in sides else None,
        moments=_moments(products, units) if stats else None,
        impl="naive",
    )


def _extremes(products: Tensor, unit: Tensor, k: int, sign: int, stats: bool) -> Extremes:
    signed = sign * products
    # a stable sort, unlike topk, keeps equal logits in the order of their ids
    scores, ids = signed.sort(dim=1, descending=True, stable=True)
    best, scores, ids = scores[:, :1], scores[:, :k], ids[:, :k]
    logits = (sign * scores.double() * unit[:, None]).to(products)
    if not stats:
        return Extremes(ids, logits)
    logp = ((signed - best) * unit.clamp(*SOFT).to(products)[:, None]).log_softmax(1)
    p = logp.exp()
    logsumexp = best[:, 0].double() * unit - logp.max(1).values.double()
    return Extremes(ids, logits, logsumexp.to(products), entr(p).sum(1), p.max(1).values)


def _moments(products: Tensor, unit: Tensor) -> Moments:
    low, high = products.aminmax(dim=1)
    mean = torch.where(low == high, low, products.mean(1))  # rounded, it would differ from them
    t = products - mean[:, None]
    size = t.abs().amax(1)  # before powers are taken, the largest is made 1
    u = t / torch.where(size > 0, size, 1.0)[:, None]
    square = u.square().mean(1)
    std = square.sqrt().clamp_min(torch.finfo(u.dtype).tiny)
    return Moments(
        (mean.double() * unit).to(products),
        square.double() * (size.double() * unit).square(),
        (u / std[:, None]).pow(3).mean(1),
        ((u / std[:, None]).pow(4).mean(1) - 3.0).masked_fill(size == 0, 0.0),
    )
