"""Sparse probing: can a class be read from a few latents? (SAEBench; Gurnee et al., 2023)

For each class, k latents are chosen whose mean over the class's texts differs most, in absolute
value, from that over the other classes' texts; a logistic regression on them is fitted, and tested
on texts of other files. Beside it the same with k of the activation's own coordinates, and with all
of them. Items are balanced, so that chance is 0.5. Everything is SAEBench's, but for the texts.

The regression is scikit-learn's with C = 1, as there: a ridge of 2 / n in `LinearProbe`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from torch import Tensor

from interp.probes.linear import LinearProbe

from ..runs.intervals import Interval, accuracy_by_group, bootstrap
from .pooled import Items, Pooled, dense_columns

KS = (1, 2, 5)
"""How many latents, or coordinates, a probe reads."""


def chosen(difference: Float[np.ndarray, " columns"], k: int) -> Int[np.ndarray, " k"]:
    """The columns that differ most between a class and the others; of equal ones the first."""
    order: np.ndarray = np.argsort(-np.abs(difference), kind="stable")[:k]
    return order


def fitted(x: Float[Tensor, "n d"], positive: Bool[np.ndarray, " n"]) -> LinearProbe:
    """Logistic regression with C = 1."""
    return LinearProbe(ridge=2 / len(x), max_iter=1000).fit(x, positive.astype(np.int64))


class ClassProbes:
    """The items of every class, and the probes on all coordinates of the activations."""

    def __init__(self, texts: Pooled) -> None:
        self.texts = texts
        self.trained = [texts.items(label, False) for label in range(texts.classes)]
        self.tested = [texts.items(label, True) for label in range(texts.classes)]
        self.probes = [fitted(texts.x[i.at], i.positive) for i in self.trained]

    def right(self, label: int, x: Float[Tensor, "n d"]) -> Bool[np.ndarray, " m"]:
        """Which tested items of a class its probe on all coordinates classifies rightly.

        Args:
            x: what stands for each text's activation.
        """
        items = self.tested[label]
        right: np.ndarray = self.probes[label].predict(x[items.at]) == items.positive
        return right

    def accuracies(self, z: csr_array) -> Iterator[tuple[int, int, Interval]]:
        """(k, class, accuracy) of the probes on k columns; class -1 is all items together."""
        for k in KS:
            right = [self._of_columns(label, z, k) for label in range(self.texts.classes)]
            yield from self._averaged(k, right)

    def whole(self) -> Iterator[tuple[int, int, Interval]]:
        """(0, class, accuracy) of the probes on all coordinates."""
        right = [self.right(label, self.texts.x) for label in range(self.texts.classes)]
        yield from self._averaged(0, right)

    def _of_columns(self, label: int, z: csr_array, k: int) -> Bool[np.ndarray, " m"]:
        trained, tested = self.trained[label], self.tested[label]
        columns = chosen(trained.difference(z), k)
        probe = fitted(dense_columns(z[trained.at], columns), trained.positive)
        said = probe.predict(dense_columns(z[tested.at], columns))
        right: np.ndarray = said == tested.positive
        return right

    def _averaged(
        self, k: int, right: list[Bool[np.ndarray, " m"]]
    ) -> Iterator[tuple[int, int, Interval]]:
        for label, own in enumerate(right):
            yield k, label, self._interval(own, self.tested[label])
        every = Items(
            np.concatenate([items.at for items in self.tested]),
            np.concatenate([items.positive for items in self.tested]),
        )
        yield k, -1, self._interval(np.concatenate(right), every)

    def _interval(self, right: Bool[np.ndarray, " m"], items: Items) -> Interval:
        _, unit = np.unique(self.texts.unit[items.at], return_inverse=True)
        found = bootstrap(*accuracy_by_group(right, unit))
        return found if unit.max() > 0 else Interval(found.value, np.nan, np.nan)


def probing_rows(
    probes: ClassProbes, codes: dict[str, csr_array], classes: list[str], unit: str
) -> Iterator[dict[str, Any]]:
    """Rows of the table: of the activations (sae ""), then of each SAE's latents."""
    of_model = [*probes.whole(), *probes.accuracies(csr_array(probes.texts.x.numpy()))]
    parts = [("", "activations", of_model)]
    parts += [(name, "latents", list(probes.accuracies(z))) for name, z in codes.items()]
    for sae, features, found in parts:
        for k, label, accuracy in found:
            name = classes[label] if label >= 0 else ""
            about = {"sae": sae, "features": features, "k": k, "class": name}
            yield {**about, **accuracy.columns("accuracy"), "unit": unit}
