"""Which feature of a dictionary detects which label of the board.

A dictionary is any set of features with activations [N, f]: SAE latents, neurons, projections.
Features are chosen on one set of games and scored on another, so that the best of a thousand does
not win by luck.

    AUROC      of each feature for each label, all at once by `rank_auroc`
    F1         of 'activation > threshold', ten thresholds per feature
    coverage   mean over own and enemy tiles of the best feature's F1 (Karvonen et al. 2024,
               'Measuring progress in dictionary learning …', BoardGameEval)
    rules      a feature claims a state of a tile from the lowest threshold on at which its
               precision on the choosing games is >= .95, over at least SUPPORT activations
    reconstruction  F1 of all rules together over own and enemy tiles, empty tiles masked; a tile
               that is claimed to be both does not count as right
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from jaxtyping import Bool, Float

from interp.probes.metrics import claims, detections

from .board_labels import STABLE, STATES, BoardLabels, tile_index, yes_no_labels

PRECISION, SUPPORT = 0.95, 10
ENOUGH = 20
"""Boards with a label, and boards without it, that scoring the label needs."""
PIECES = slice(64, 192)
"""Columns of the own and enemy tiles among the labels."""


class Targets(NamedTuple):
    """The yes-or-no labels of the choosing and of the scoring games."""

    columns: pd.DataFrame
    """name, kind, tile of all 320 columns, and `scored`: whether both sets of games have enough
    boards with and without the label."""
    choose: Bool[np.ndarray, "n l"]
    score: Bool[np.ndarray, "m l"]


class Match(NamedTuple):
    """Which label each of a dictionary's features detects."""

    best: pd.DataFrame
    """A row per scored label: name, kind, tile; latent_auroc and auroc; latent_f1, threshold, f1:
    the best features on the choosing games, and how good they are on the scoring games."""
    auroc: Float[np.ndarray, "f l"]
    """On the choosing games; NaN for labels that are not scored."""
    f1: Float[np.ndarray, "f l"]
    """On the choosing games, the best of the thresholds."""
    rules: Float[np.ndarray, "f 128"]
    """Threshold from which a feature claims an own (0 .. 63) or enemy (64 .. 127) tile, or inf."""


def targets(choose: BoardLabels, score: BoardLabels) -> Targets:
    a, b = yes_no_labels(choose), yes_no_labels(score)
    rarest = np.minimum(*(np.minimum(marks.sum(0), (~marks).sum(0)) for marks in (a, b)))
    return Targets(tile_index(STATES + STABLE).assign(scored=rarest >= ENOUGH), a, b)


def match(
    choose: Float[np.ndarray, "n f"], score: Float[np.ndarray, "m f"], wanted: Targets
) -> Match:
    """Match a dictionary's activations on the choosing and the scoring games."""
    columns = np.flatnonzero(wanted.columns["scored"])
    auroc = np.full((choose.shape[1], len(wanted.columns)), np.nan)
    auroc[:, columns] = auroc_table(choose, wanted.choose[:, columns])
    counted = detections(choose, wanted.choose)
    f1 = counted.f1
    best_f1 = f1.max(1)
    best = wanted.columns.iloc[columns].drop(columns="scored").reset_index(drop=True)
    best["latent_auroc"] = auroc[:, columns].argmax(0)
    best["latent_f1"] = best_f1[:, columns].argmax(0)
    level = f1[best["latent_f1"], :, columns].argmax(1)
    best["threshold"] = counted.thresholds[best["latent_f1"], level]
    truth = wanted.score[:, columns]
    used, which = np.unique(best["latent_auroc"], return_inverse=True)  # each ranked once
    best["auroc"] = auroc_table(score[:, used], truth)[which, np.arange(len(best))]
    fires = score[:, best["latent_f1"]] > best["threshold"].to_numpy(np.float32)
    hits = 2 * (fires & truth).sum(0)
    best["f1"] = hits / np.maximum(fires.sum(0) + truth.sum(0), 1)
    often = (counted.active >= SUPPORT)[..., None]
    good = often & (counted.precision[..., PIECES] >= PRECISION)
    lowest = np.take_along_axis(counted.thresholds, good.argmax(1), 1)
    rules = np.where(good.any(1), lowest, np.inf).astype(np.float32)
    return Match(best, auroc, f1.max(1), rules)


def auroc_table(
    features: Float[np.ndarray, "n f"], marks: Bool[np.ndarray, "n l"]
) -> Float[np.ndarray, "f l"]:
    """AUROC of every feature for every label."""
    from interp.kernels import rank_auroc

    values = torch.from_numpy(np.ascontiguousarray(features))
    table: np.ndarray = rank_auroc(values, torch.from_numpy(marks)).numpy()
    return table


def rule_board(
    features: Float[np.ndarray, "n f"], rules: Float[np.ndarray, "f 128"]
) -> npt.NDArray[np.int8]:
    """The board that the rules claim [n, 64]: 0 no claim, 1 own, 2 enemy, 3 both."""
    claimed = claims(features, rules)
    board: npt.NDArray[np.int8] = (claimed[:, :64] + 2 * claimed[:, 64:]).astype(np.int8)
    return board


def reconstruction_counts(
    seen: npt.NDArray[np.int8], truth: npt.NDArray[np.int8]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Per board, (2 TP, 2 TP + FP + FN) over own and enemy tiles: their sums give the F1.

    Of a tile that is claimed to be both only the wrong claim counts, as in BoardGameEval.
    """
    occupied = truth > 0
    hits = 2 * ((seen == truth) & occupied).sum(1)
    wrong = sum((((seen == state) | (seen == 3)) & (truth != state)).sum(1) for state in (1, 2))
    missed = (occupied & (seen != truth) & (seen != 3)).sum(1)
    return hits, hits + wrong + missed
