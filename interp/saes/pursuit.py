"""Non-negative gradient pursuit: codes over an SAE's dictionary without its encoder.

Source: Blumensath & Davies, 'Gradient pursuits' (2008), kept non-negative as in Engels, Smith and
Tegmark, section 6 (inference-time optimisation). A step, for a residual r = x - b - z D:

    add the atom with the largest r.D_i / |D_i|, if it is positive
    g = r D^T on the chosen atoms (0 where z = 0 and g < 0)
    z <- max(z + c g, 0),  c = g.g / |g D|^2, the exact minimum along g

Where setting the negatives to 0 would raise the error, the step ends at the first coefficient that
reaches 0 instead: the squared error of a token never rises. Naive equivalent of many steps over few
atoms: scipy.optimize.nnls on the chosen ones.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK = 256
"""Tokens pursued at once."""


class Pursued(NamedTuple):
    """Codes, sparse: token t is bias + sum_s value[t, s] dictionary[atom[t, s]] + residual[t]."""

    atom: Int[Tensor, "n steps"]
    value: Float[Tensor, "n steps"]
    """0 for steps that were not made or had no effect."""
    residual: Float[Tensor, "n d"]


def pursue(
    x: Float[Tensor, "n d"],
    dictionary: Float[Tensor, "atoms d"],
    bias: Float[Tensor, " d"],
    steps: Int[Tensor, " n"],
) -> Pursued:
    """Codes of at most `steps` atoms a token (0: the bias alone), in x's dtype.

    Raises:
        ValueError: more steps than atoms, or values that are not finite.
    """
    maximum = int(steps.max()) if len(steps) else 0
    if maximum > len(dictionary):
        raise ValueError(f"{maximum} steps are more than the dictionary's {len(dictionary)} atoms")
    if not (x.isfinite().all() and dictionary.isfinite().all()):
        raise ValueError("x or the dictionary holds a NaN or an infinity")
    target, atoms = x - bias, dictionary.to(x)
    parts = [
        _chunk(own, atoms, count, maximum)
        for own, count in zip(torch.split(target, CHUNK), torch.split(steps, CHUNK), strict=True)
    ]
    if not parts:
        return Pursued(steps.new_zeros(0, 0), x.new_zeros(0, 0), target)
    return Pursued(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _chunk(target: Tensor, atoms: Tensor, steps: Tensor, maximum: int) -> Pursued:
    """All steps of some tokens; a token stops when no atom helps or it has made its steps."""
    tiny = torch.finfo(target.dtype).tiny
    lengths = atoms.norm(dim=1).clamp_min(tiny)
    index = torch.zeros(len(target), maximum, dtype=torch.long)
    value = target.new_zeros(len(target), maximum)
    taken = torch.zeros(len(target), len(atoms), dtype=torch.bool)
    residual = target.clone()
    going = torch.arange(len(target))
    for step in range(maximum):
        going = going[steps[going] > step]
        scores = residual[going] @ atoms.T
        gain, best = (scores / lengths).masked_fill(taken[going], -torch.inf).max(1)
        useful = gain > 0
        going, best, scores = going[useful], best[useful], scores[useful]
        if not len(going):
            break
        index[going, step], taken[going, best] = best, True
        own = index[going, : step + 1]
        z, left = value[going, : step + 1], residual[going]
        value[going, : step + 1], residual[going] = _stepped(
            z, left, scores.gather(1, own), atoms[own], target[going]
        )
    return Pursued(index, value, residual)


def _stepped(
    z: Tensor, residual: Tensor, gradient: Tensor, chosen: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """New coefficients [n, s] and residuals [n, d] after one step on the chosen atoms [n, s, d]."""
    g = torch.where((z <= 0) & (gradient < 0), 0, gradient)
    along = torch.einsum("ns,nsd->nd", g, chosen)
    curve = along.square().sum(1)
    # an exact fit leaves no gradient, and 0 / 0 must stay a step of length 0
    length = torch.where(curve > 0, g.square().sum(1) / torch.where(curve > 0, curve, 1), 0)
    clipped = (z + length[:, None] * g).clamp_min(0)
    room = torch.where(g < 0, z / torch.where(g < 0, -g, 1), torch.inf).amin(1)
    cut = (z + torch.minimum(length, room)[:, None] * g).clamp_min(0)
    before = residual.square().sum(1)
    for option in (clipped, cut):
        left = target - torch.einsum("ns,nsd->nd", option, chosen)
        lower = left.square().sum(1) < before
        z = torch.where(lower[:, None], option, z)
        residual = torch.where(lower[:, None], left, residual)
        before = residual.square().sum(1)
    return z, residual
