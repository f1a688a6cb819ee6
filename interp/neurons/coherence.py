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

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor
from torch.nn.functional import normalize

CHUNK = 128
"""Lists of tokens (and 16 times as many rows of the read-out) handled at once."""
NULL = 1e-6
"""Share of the largest variance below which a direction of the read-out counts as empty."""


def whitened(readout: Float[Tensor, "tokens d"]) -> Float[Tensor, "tokens d"]:
    """The read-out's rows whitened and of length 1, in half precision: they stay in memory beside
    the read-out."""
    mean, width = readout.mean(0), readout.shape[1]
    covariance = torch.zeros(width, width, dtype=torch.float64)
    for part in torch.split(readout, 16 * CHUNK):
        covariance += ((part - mean).T @ (part - mean)).double().cpu() / len(readout)
    variances, axes = torch.linalg.eigh(covariance)
    empty = variances <= NULL * variances[-1].clamp_min(1e-30)
    whiten = axes * torch.where(empty, torch.inf, variances).rsqrt()
    metric = whiten.float().to(readout.device)
    units = torch.empty_like(readout, dtype=torch.float16)
    for start in range(0, len(readout), 16 * CHUNK):
        part = readout[start : start + 16 * CHUNK]
        units[start : start + len(part)] = normalize((part - mean) @ metric, dim=1)
    return units


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
