"""Absorption: does a latent for a first letter fall silent where a word's own latent fires?

Chanin et al., 'A is for absorption' (2024), with SAEBench's fraction. At the last token of a word
in a spelling prompt, for each letter:

1. The ground truth is a logistic probe on the activation; p is its weights' direction, a unit
   vector. Letters whose probe has an F1 of at most MIN_F1 on the tested words are left out.
2. Split latents: the k of the largest weights of a logistic regression with an L1 penalty on all
   latents, k growing while the F1 of a regression on these k rises by more than JUMP.
3. A latent's share of the activation along p is a_j = z_j (W_dec_j . p). Over tested words of the
   letter that the probe finds (its score is above 0), with s the sum of a_j over the split latents
   and r the sum of the ABSORBERS largest positive a_j of other latents with cos(W_dec_j, p) >= COS:

       fraction = 0                   where x . p <= 0, s >= x . p or r < SHARE x . p
                  1                   else where s <= 0
                  m / (m + s)         else, m = min(r, x . p - s)

   Full absorption: no split latent is active, the latent with the largest a_j has a cosine of at
   least FULL_COS, x . p >= 0, and a_j >= SHARE x . p.

Both are SAEBench's, and so are the constants. The regressions are solved exactly, there by Adam.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from ..runs.intervals import mean_of
from .labelled import LETTERS
from .pooled import Pooled

MIN_F1 = 0.6
JUMP = 0.03
MOST_SPLIT = 10
L1 = 0.01
"""Of the regression on all latents: its loss is a mean over words."""
COS, FULL_COS = 0.1, 0.025
SHARE = 0.4
ABSORBERS = 3
SILENT = 1e-8
"""A split latent below this is not active."""
DECAY = 1e-4
"""Of the ground truth's weights."""


@dataclass(frozen=True)
class Truth:
    """A letter's probe on the model's activations."""

    direction: Float[Tensor, " d"]
    """Its weights as a unit vector."""
    score: Float[np.ndarray, " n"]
    """Of each word; above 0 it says that the word begins with the letter."""
    f1: float
    """Over the tested words."""


def truth(
    x: Float[Tensor, "n d"], own: Bool[np.ndarray, " n"], tested: Bool[np.ndarray, " n"]
) -> Truth:
    """Fit a letter's probe on the words that are not tested; classes count equally.

    Args:
        own: words that begin with the letter.
    """
    fit, values = ~tested, x.double().numpy()
    # Newton's steps: the classes are nearly separable, which takes descent thousands of passes
    probe = LogisticRegression(
        C=1 / (DECAY * fit.sum()), class_weight=_balance(own[fit]), solver="newton-cholesky"
    )
    probe.fit(values[fit], own[fit])
    direction = torch.from_numpy(probe.coef_[0]).float()
    score = probe.decision_function(values)
    found = f1(score[tested] > 0, own[tested])
    return Truth(direction / direction.norm(), score, found)


def _balance(own: Bool[np.ndarray, " n"]) -> dict[bool, float]:
    """How much a word counts, so that those of the letter count as much as the others."""
    return {True: float((~own).sum() / own.sum()), False: 1.0}


def f1(said: Bool[np.ndarray, " n"], true: Bool[np.ndarray, " n"]) -> float:
    """2 TP / (2 TP + FP + FN); 0 if nothing is said and nothing true."""
    return float(2 * (said & true).sum() / max(int(said.sum()) + int(true.sum()), 1))


def split_latents(
    z: csr_array, own: Bool[np.ndarray, " n"], tested: Bool[np.ndarray, " n"]
) -> Int[np.ndarray, " k"]:
    """The latents that stand for a letter, the most telling first."""
    fit = np.flatnonzero(~tested)
    held = np.flatnonzero(tested)
    weights = _sparse_weights(z[fit], own[fit])
    order = np.argsort(-weights, kind="stable")[:MOST_SPLIT]
    best, kept = -np.inf, order[:0]
    for k in range(1, len(order) + 1):
        columns = order[:k]
        some = np.asarray(z[:, columns].todense())
        probe = LogisticRegression(max_iter=500, class_weight="balanced")
        probe.fit(some[fit], own[fit])
        reached = f1(probe.decision_function(some[held]) > 0, own[held])
        if not reached > best + JUMP:
            break
        best, kept = reached, columns
    return kept


def _sparse_weights(z: csr_array, own: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " d_sae"]:
    """Of the regression with an L1 penalty on all latents; positive ones speak for the letter."""
    penalised = LogisticRegression(
        l1_ratio=1.0, C=1 / (L1 * len(own)), class_weight=_balance(own),
        solver="liblinear", max_iter=200, random_state=0,
    )  # fmt: skip
    with warnings.catch_warnings():
        # the ranking of the largest weights is settled long before the last digits
        warnings.simplefilter("ignore", ConvergenceWarning)
        penalised.fit(z, own)
    weights: np.ndarray = penalised.coef_[0]
    return weights


@dataclass(frozen=True)
class Absorbed:
    """Of each word: how much of the letter others than the split latents stand for."""

    fraction: Float[np.ndarray, " n"]
    full: Bool[np.ndarray, " n"]


def absorbed(
    x: Float[Tensor, "n d"],
    z: csr_array,
    W_dec: Float[Tensor, "d_sae d"],
    direction: Float[Tensor, " d"],
    split: Int[np.ndarray, " k"],
) -> Absorbed:
    """The module's fraction and full absorption of words [n].

    Args:
        z: latents of each word, in the activation's own scale.
        direction: the probe's, a unit vector.
    """
    along = (W_dec.double() @ direction.double()).numpy()
    cosine = along / np.maximum(W_dec.double().norm(dim=1).numpy(), 1e-300)
    whole = (x.double() @ direction.double()).numpy()
    fraction, full = np.zeros(len(whole)), np.zeros(len(whole), bool)
    for word in range(len(whole)):
        row = slice(z.indptr[word], z.indptr[word + 1])
        latents, values = z.indices[row], z.data[row].astype(np.float64)
        shares, main = values * along[latents], np.isin(latents, split)
        others = shares[~main & (cosine[latents] >= COS) & (shares > 0)]
        s, r = shares[main].sum(), np.sort(others)[-ABSORBERS:].sum()
        fraction[word] = _fraction(whole[word], s, r)
        silent = not (values[main] >= SILENT).any()
        if silent and len(shares) and whole[word] >= 0:
            top = int(np.argmax(shares))
            aligned = cosine[latents[top]] >= FULL_COS
            full[word] = aligned and shares[top] >= SHARE * whole[word] and shares[top] > 0
    return Absorbed(fraction, full)


def _fraction(whole: float, main: float, others: float) -> float:
    if whole <= 0 or main >= whole or others < SHARE * whole:
        return 0.0
    if main <= 0:
        return 1.0
    more = min(others, whole - main)
    return float(np.clip(more / (more + main), 0, 1))


def letter_rows(
    name: str,
    words: Pooled,
    z: csr_array,
    W_dec: Float[Tensor, "d_sae d"],
    truths: dict[str, Truth],
) -> Iterator[dict[str, Any]]:
    """Rows of the table of one SAE: each letter that can be judged, then their mean."""
    means: list[tuple[float, float]] = []
    for letter, known in truths.items():
        own = words.label == LETTERS.index(letter)
        found = np.flatnonzero(own & words.tested & (known.score > 0))
        split = split_latents(z, own, words.tested)
        judged = absorbed(words.x[found], z[found], W_dec, known.direction, split)
        about = {"sae": name, "letter": letter, "probe_f1": known.f1, "words": len(found)}
        row = {**about, "split": len(split), "latents": split.tolist()}
        yield row | _both(judged.fraction, judged.full) | {"unit": "word"}
        means.append((judged.fraction.mean(), judged.full.mean()))
    if means:
        fraction, full = np.array(means).T
        f1s = float(np.mean([known.f1 for known in truths.values()]))
        about = {"sae": name, "letter": "", "probe_f1": f1s, "words": 0, "split": 0, "latents": []}
        yield about | _both(fraction, full) | {"unit": "letter"}


def _both(fraction: Float[np.ndarray, " n"], full: npt.ArrayLike) -> dict[str, float]:
    return {**mean_of(fraction).columns("fraction"), **mean_of(full).columns("full")}


def truths_of(words: Pooled) -> dict[str, Truth]:
    """The probe of each letter that the model knows: whose F1 is above MIN_F1."""
    known = {}
    for label, letter in enumerate(LETTERS):
        own = words.label == label
        if (own & words.tested).any() and (own & ~words.tested).any():
            probe = truth(words.x, own, words.tested)
            if probe.f1 > MIN_F1:
                known[letter] = probe
    return known
