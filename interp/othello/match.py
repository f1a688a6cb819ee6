"""Which feature of a dictionary stands for which fact of the board.

A dictionary is any set of features with activations [N, f]: SAE latents, neurons, projections.
Features are chosen on one set of games and scored on another, so that the best of a thousand does
not win by luck.

    AUROC      of each feature for each fact, all at once by `rank_auroc`
    F1         of 'activation > threshold', ten thresholds a feature
    coverage   mean over own and enemy tiles of the best feature's F1 (Karvonen et al. 2024,
               'Measuring progress in dictionary learning …', BoardGameEval)
    rules      a feature speaks for a tile's state from the lowest threshold on at which its
               precision on the choosing games is >= .95, over at least SUPPORT activations
    reconstruction  F1 of all rules together over own and enemy tiles, blanks masked; a tile that
               is claimed to be both is no hit
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from jaxtyping import Bool, Float

from interp.probes.metrics import claims, detections

from .facts import Facts, labels

PRECISION, SUPPORT = 0.95, 10
ENOUGH = 20
"""Positive (and negative) boards a fact needs to be asked about."""
PIECES = slice(64, 192)
"""Columns of the own and enemy tiles among `labels`."""


class Asked(NamedTuple):
    """The facts of two sets of games that are common enough in both to be asked about."""

    columns: pd.DataFrame
    """kind, tile, name of all 320 columns, and `asked`."""
    choose: Bool[np.ndarray, "n l"]
    score: Bool[np.ndarray, "m l"]


class Match(NamedTuple):
    """What a dictionary's features stand for."""

    best: pd.DataFrame
    """A row a fact: kind, tile, name; latent_auroc and auroc; latent_f1, threshold and f1."""
    auroc: Float[np.ndarray, "f l"]
    """On the choosing games; NaN for facts not asked about."""
    f1: Float[np.ndarray, "f l"]
    """On the choosing games, the best of the thresholds."""
    rules: Float[np.ndarray, "f 128"]
    """Threshold from which a feature speaks for an own (0 .. 63) or enemy (64 .. 127) tile, or
    inf."""


def asked(choose: Facts, score: Facts) -> Asked:
    (a, index), (b, _) = labels(choose), labels(score)
    enough = np.minimum(_rarest(a), _rarest(b)) >= ENOUGH
    return Asked(index.assign(asked=enough), a, b)


def _rarest(marks: Bool[np.ndarray, "n l"]) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = np.minimum(marks.sum(0), (~marks).sum(0))
    return found


def match(choose: Float[np.ndarray, "n f"], score: Float[np.ndarray, "m f"], facts: Asked) -> Match:
    """Match a dictionary's activations on the choosing and the scoring games."""
    columns = np.flatnonzero(facts.columns["asked"])
    auroc = np.full((choose.shape[1], len(facts.columns)), np.nan)
    auroc[:, columns] = auroc_table(choose, facts.choose[:, columns])
    counted = detections(choose, facts.choose)
    f1 = counted.f1
    best = facts.columns[facts.columns["asked"]].drop(columns="asked").reset_index(drop=True)
    best["latent_auroc"] = auroc[:, columns].argmax(0)
    best["latent_f1"] = f1.max(1)[:, columns].argmax(0)
    level = f1[best["latent_f1"], :, columns].argmax(1)
    best["threshold"] = counted.thresholds[best["latent_f1"], level]
    truth = facts.score[:, columns]
    best["auroc"] = _chosen_auroc(score, best["latent_auroc"].to_numpy(), truth)
    fires = score[:, best["latent_f1"]] > best["threshold"].to_numpy(np.float32)
    hits = 2 * (fires & truth).sum(0)
    best["f1"] = hits / np.maximum(fires.sum(0) + truth.sum(0), 1)
    good = (counted.precision >= PRECISION) & (counted.active >= SUPPORT)[..., None]
    return Match(best, auroc, f1.max(1), _rules(good[..., PIECES], counted.thresholds))


def auroc_table(
    features: Float[np.ndarray, "n f"], marks: Bool[np.ndarray, "n l"]
) -> Float[np.ndarray, "f l"]:
    from interp.kernels import rank_auroc

    values = torch.from_numpy(np.ascontiguousarray(features))
    found: np.ndarray = rank_auroc(values, torch.from_numpy(marks)).numpy()
    return found


def _chosen_auroc(
    features: Float[np.ndarray, "n f"],
    latents: npt.NDArray[np.int64],
    marks: Bool[np.ndarray, "n l"],
) -> Float[np.ndarray, " l"]:
    """AUROC of one chosen feature for each label, each feature ranked once."""
    used, which = np.unique(latents, return_inverse=True)
    every = auroc_table(features[:, used], marks)
    found: np.ndarray = every[which, np.arange(marks.shape[1])]
    return found


def _rules(
    good: Bool[np.ndarray, "f T p"], thresholds: Float[np.ndarray, "f T"]
) -> Float[np.ndarray, "f p"]:
    """The lowest threshold at which a feature is good enough."""
    first = np.take_along_axis(thresholds, good.argmax(1), 1)
    return np.where(good.any(1), first, np.inf).astype(np.float32)


def rule_board(
    features: Float[np.ndarray, "n f"], rules: Float[np.ndarray, "f 128"]
) -> npt.NDArray[np.int8]:
    """The board the rules see [n, 64]: 0 nothing claimed, 1 own, 2 enemy, 3 both."""
    found = claims(features, rules)
    board: npt.NDArray[np.int8] = (found[:, :64] + 2 * found[:, 64:]).astype(np.int8)
    return board


def reconstruction_counts(
    seen: npt.NDArray[np.int8], truth: npt.NDArray[np.int8]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Per board, (2 TP, 2 TP + FP + FN) over own and enemy tiles: sums of which give the F1.

    A tile claimed to be both counts by its wrong claims only, as in BoardGameEval.
    """
    occupied = truth > 0
    hits = 2 * ((seen == truth) & occupied).sum(1)
    wrong = sum((((seen == state) | (seen == 3)) & (truth != state)).sum(1) for state in (1, 2))
    missed = (occupied & (seen != truth) & (seen != 3)).sum(1)
    return hits, hits + wrong + missed
