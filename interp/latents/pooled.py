"""Activations of labelled texts, averaged over each text's tokens, and the items of a class.

SAEBench averages a text's activations over its tokens, those of the model and those of the latents,
before it probes them. A latent is active on few texts, so their averages are kept sparse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from torch import Tensor


@dataclass(frozen=True)
class Pooled:
    """Texts [n], each with a class and the file (or other unit) that it is from."""

    x: Float[Tensor, "n d"]
    """Mean activation of each text."""
    label: Int[np.ndarray, " n"]
    unit: Int[np.ndarray, " n"]
    """What intervals resample: texts of one file depend on each other."""
    tested: Bool[np.ndarray, " n"]
    """Texts that are tested on; the others are fitted on. No unit has both."""

    @property
    def classes(self) -> int:
        return int(self.label.max()) + 1

    def items(self, label: int, tested: bool, seed: int = 0) -> Items:
        """Texts of a class, and as many of the others, drawn evenly from each other class: all of
        the class, or as many as the others have.

        As SAEBench's `prepare_probe_data`, with the draw fixed by the seed and the class.
        """
        draw = np.random.default_rng((seed, label, tested))
        part = self.tested == tested
        own = np.flatnonzero(part & (self.label == label))
        others = [each for each in range(self.classes) if each != label]
        most = -(-len(own) // len(others))
        drawn = []
        for other in others:
            there = np.flatnonzero(part & (self.label == other))
            drawn.append(draw.permutation(there)[:most])
        negative = draw.permutation(np.concatenate(drawn))[: len(own)]
        if len(negative) < len(own):
            own = draw.permutation(own)[: len(negative)]
        at = np.concatenate([own, negative])
        return Items(at, np.arange(len(at)) < len(own))


class Items(NamedTuple):
    """Texts of one class and of the others."""

    at: Int[np.ndarray, " m"]
    positive: Bool[np.ndarray, " m"]

    def difference(self, z: csr_array) -> Float[np.ndarray, " columns"]:
        """The mean over the class less the mean over the others, for each column."""
        own, others = z[self.at[self.positive]], z[self.at[~self.positive]]
        difference: np.ndarray = np.asarray(own.mean(0) - others.mean(0)).ravel()
        return difference


def dense_columns(z: csr_array, columns: Int[np.ndarray, " k"]) -> Float[Tensor, "n k"]:
    """Some columns of a sparse matrix."""
    return torch.from_numpy(np.asarray(z[:, columns].todense(), np.float32))
