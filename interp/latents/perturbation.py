"""Targeted probe perturbation: does taking a class's latents out blind its probe alone? (SAEBench)

For a class i, each latent's effect on its probe is

    effect_j = max(0, mean of z_j over class i - mean of z_j over the others) * (W_dec_j . w_i)

with w_i the weights of the probe on the model's activations. The n latents of the largest effects
are set to 0 (the SAE's error stays), and every class's probe is tested again. With A_j the accuracy
of class j's probe, and A_ij after the ablation for class i,

    intended = A_i - A_ii       unintended = mean over j != i of A_j - A_ij
    score    = intended - unintended          averaged over classes i

Everything is SAEBench's, but for the probe, which is penalised by its squares (`probing.py`), there
by their absolute values. Decoding is linear, so the mean over a text's tokens is changed by the
mean of its latents.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from torch import Tensor

from ..runs.intervals import Interval, Resamples, resampled
from .pooled import dense_columns
from .probing import ClassProbes

NS = (1, 2, 5, 10, 20, 50)
"""How many latents are set to 0."""


class Perturbed:
    """One SAE's effects on every class's probe.

    Args:
        z: mean latents of each text, in the activations' own scale.
    """

    def __init__(self, probes: ClassProbes, z: csr_array, W_dec: Float[Tensor, "d_sae d"]) -> None:
        self.probes, self.z, self.W_dec = probes, z, W_dec
        self.classes = probes.texts.classes
        _, self._unit = np.unique(probes.texts.unit, return_inverse=True)
        self._clean = [self._by_unit(label, probes.texts.x) for label in range(self.classes)]
        counts = self._summed(np.concatenate([items.at for items in probes.tested]))
        self.drawn: Resamples = resampled(counts)

    def effects(self, label: int) -> Float[np.ndarray, " d_sae"]:
        """Of each latent on the class's probe."""
        difference = np.maximum(self.probes.trained[label].difference(self.z), 0)
        coef = self.probes.probes[label].coef_
        weights = torch.from_numpy(coef[1] - coef[0]).to(self.W_dec)
        effects: np.ndarray = difference * (self.W_dec @ weights).numpy()
        return effects

    def selected(self, label: int, n: int) -> Int[np.ndarray, " n"]:
        """The n latents of the largest effects, fewer if fewer have one that is not 0."""
        effects = self.effects(label)
        n = min(n, int((effects != 0).sum()))
        order: np.ndarray = np.argsort(-effects, kind="stable")[:n]
        return order

    def drops(self, label: int, n: int) -> Float[np.ndarray, "resamples classes"]:
        """What every class's probe loses in accuracy when n latents of a class are set to 0."""
        latents = self.selected(label, n)
        away = dense_columns(self.z, latents) @ self.W_dec[latents].float()
        x = self.probes.texts.x - away
        return np.stack([self._lost(other, x) for other in range(self.classes)], 1)

    def _lost(self, label: int, x: Tensor) -> Float[np.ndarray, " resamples"]:
        weights, items = self.drawn.weights, self.probes.tested[label]
        with np.errstate(invalid="ignore"):  # a resample without an item of the class says nothing
            lost: np.ndarray = (weights @ (self._clean[label] - self._by_unit(label, x))) / (
                weights @ self._summed(items.at)
            )
        return lost

    def _by_unit(self, label: int, x: Tensor) -> Float[np.ndarray, " units"]:
        right = self.probes.right(label, x)
        return self._summed(self.probes.tested[label].at, right.astype(float))

    def _summed(
        self, at: Int[np.ndarray, " m"], values: Float[np.ndarray, " m"] | None = None
    ) -> Float[np.ndarray, " units"]:
        return np.bincount(self._unit[at], values, minlength=self._unit.max() + 1).astype(float)

    def scores(self, n: int) -> Iterator[tuple[int, dict[str, Interval]]]:
        """(class, intended, unintended and score); class -1 is the mean over classes."""
        every = []
        for label in range(self.classes):
            drops = self.drops(label, n)
            own, others = drops[:, label], np.delete(drops, label, 1).mean(1)
            every.append(np.stack([own, others, own - others]))
            yield label, self._named(every[-1])
        yield -1, self._named(np.mean(every, 0))

    def _named(self, values: Float[np.ndarray, "3 resamples"]) -> dict[str, Interval]:
        names = ("intended", "unintended", "score")
        return {k: self.drawn.interval(v) for k, v in zip(names, values, strict=True)}


def perturbation_rows(
    name: str, perturbed: Perturbed, classes: list[str], unit: str
) -> Iterator[dict[str, Any]]:
    """Rows of the table of one SAE."""
    for n in (each for each in NS if each <= len(perturbed.W_dec)):
        for label, found in perturbed.scores(n):
            row: dict[str, Any] = {"sae": name, "n": n, "class": classes[label] * (label >= 0)}
            for measure, interval in found.items():
                row |= interval.columns(measure)
            yield {**row, "unit": unit}
