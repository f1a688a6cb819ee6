"""Coherence: do the first tokens of a vector belong together?

The score of `search.py` asks whether one word stands out. A vector that reads or writes a group
(animals, months, numbers) has no single word that does. Its coherence is the mean cosine of the
read-out rows of its tokens, over all pairs that are of different words, so that `dog`, ` Dogs` and
` DOG` alone make no group.

The cosine is taken after whitening the read-out: its rows minus their mean, in the metric of their
inverse covariance (the causal inner product of Park, Choe & Veitch, 'The linear representation
hypothesis and the geometry of large language models'). With plain cosines, frequent tokens and
tokens that were hardly trained each lie so close together that the lists of random directions,
which are full of them, look more coherent than lists of animals (docs/neurons.md has the figures).
It does not change with a gain that multiplies the stream. Naive equivalent:

    C = W_U - W_U.mean(0);  P = inv(C.T @ C / V);  cos(a, b) = a P b / sqrt(a P a * b P b)
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor
from torch.nn.functional import normalize

CHUNK = 128
"""Lists of tokens (and 16 times as many rows of the read-out) handled at once."""
NULL = 1e-12
"""Share of the largest variance below which a direction of the read-out counts as empty."""
COARSE = 1e-4
"""Share of the largest variance that products in float32 give to 5 digits."""


def whitened(readout: Float[Tensor, "tokens d"]) -> Float[Tensor, "tokens d"]:
    """The read-out's rows whitened and of length 1, in half precision: they stay in memory beside
    the read-out."""
    precise = readout[:0]  # the dtype and device that products are made in
    variances, axes = torch.linalg.eigh(_covariance(readout, precise))
    if variances[0] < COARSE * variances[-1]:
        # one token many times longer than the others has nearly all of the largest variance
        precise = precise.cpu().double()
        variances, axes = torch.linalg.eigh(_covariance(readout, precise))
    empty = variances <= NULL * variances[-1]
    whiten = (axes * torch.where(empty, torch.inf, variances).rsqrt()).to(precise)
    units = torch.empty_like(readout, dtype=torch.float16)
    for start, part in _centred(readout, precise):
        units[start : start + len(part)] = normalize(part @ whiten, dim=1)
    return units


def _covariance(readout: Tensor, precise: Tensor) -> Float[Tensor, "d d"]:
    total = torch.zeros(readout.shape[1], readout.shape[1], dtype=torch.float64)
    for _, part in _centred(readout, precise):
        total += (part.T @ part).cpu().double() / len(readout)
    return total


def _centred(readout: Tensor, precise: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Some rows at a time, with the place of the first: minus the mean of all, in a unit that keeps
    squares in range, which whitening takes off again."""
    _, power = torch.frexp(readout.abs().max())
    unit = torch.ldexp(readout.new_ones(()), -power)
    parts = torch.split(readout, 16 * CHUNK)
    mean = torch.stack([(part * unit).sum(0) for part in parts]).sum(0) / len(readout)
    for number, part in enumerate(parts):
        yield number * 16 * CHUNK, (part * unit - mean).to(precise)


def coherence(
    rows: Int[Tensor, "n k"],
    units: Float[Tensor, "tokens d"],
    words: Int64[np.ndarray, " tokens"],
) -> Float[Tensor, " n"]:
    """Mean cosine over the pairs of tokens of a list that are of different words; NaN where all
    are of one.

    Args:
        rows: places in `units` of each list's tokens.
        units: what `whitened` gives.
        words: the number of the word that each of its tokens stands for.
    """
    of_word, (k, width) = torch.from_numpy(words).to(rows.device), (rows.shape[1], units.shape[1])
    means = torch.empty(len(rows), device=rows.device)
    # blocks that are used again take half the time of new ones, whose pages the system clears, and
    # break up no memory: between new ones it was lost, 5 GB in a layer of Llama-3.1-8B
    halves = torch.empty(CHUNK * k, width, dtype=units.dtype, device=rows.device)
    floats = torch.empty(CHUNK, k, width, device=rows.device)
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK].long()
        stored = torch.index_select(units, 0, part.flatten(), out=halves[: part.numel()])
        chosen = floats[: len(part)].copy_(stored.view(*part.shape, width))
        family, cosines = of_word[part], chosen @ chosen.mT
        apart = (family[:, :, None] != family[:, None, :]).float()
        means[start : start + CHUNK] = (cosines * apart).sum((1, 2)) / apart.sum((1, 2))
    return means
