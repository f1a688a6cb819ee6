"""The readers of the comparison, each scored on the same held-out boards of one layer.

A reader is what gets the board out of a layer's activations: a linear probe, or a dictionary's
features. It gives rows `measure, value, low, high, unit`: `low` and `high` are the ends of the
95 % interval, which resamples whole games (unit "game"); without an interval they are NaN and the
unit is "".

    accuracy         tiles of the board {empty, own, enemy} read right (a dictionary's board is that
                     of its rules: no claim means empty)
    accuracy_colour  the same for {empty, black, white}
    auroc_<kind>     mean over tiles of the AUROC for empty, own, enemy, paper, sound
    f1_<kind>        mean over tiles of the F1
    coverage         mean F1 over own and enemy tiles
    reconstruction   F1 over own and enemy tiles of the board read
    stable_<kind>    features with an AUROC over .8 for at least one stable tile
    tiles_<kind>     the maximum number of such tiles for one feature
    cosine_probe, cosine_mean   mean cosine of the best latents' decoder rows with the probe's class
                     vectors, and with the class means (less the overall mean), own and enemy
    nearest_probe    mean over classes of the largest cosine of any decoder row
    probe_through    accuracy of the layer's probe on an autoencoder's reconstructions
    fvu, l0          of an autoencoder, on the scoring games
"""

from __future__ import annotations

import logging
import warnings
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize, one_hot

from interp.probes.linear import LinearProbe
from interp.probes.metrics import fvu

from ..runs.intervals import accuracy_by_group, bootstrap
from .board_labels import STABLE, STATES, BoardLabels
from .match import Match, Targets, auroc_table, match, reconstruction_counts, rule_board

Rows = list[dict[str, Any]]
STRONG = 0.8
"""AUROC from which the paper calls a latent a stability feature."""
log = logging.getLogger("interp")


class Boards(NamedTuple):
    """The labels of the choosing and the scoring games."""

    choose: BoardLabels
    score: BoardLabels
    targets: Targets


class Probes(NamedTuple):
    """Linear read-outs of one layer."""

    rows: Rows
    coef: Tensor
    """[64, 3, d]: class vectors of {empty, own, enemy}, centred over classes."""
    intercept: Tensor
    """[64, 3]"""
    means: Tensor
    """[64, 3, d]: mean activation of each class less the overall mean; 0 for a class that never
    occurs."""


def interval_row(measure: str, sums: npt.ArrayLike, counts: npt.ArrayLike) -> dict[str, Any]:
    """A mean over games: sum(sums) / sum(counts), and its interval by resampling games."""
    return {"measure": measure, **bootstrap(sums, counts)._asdict(), "unit": "game"}


def row(measure: str, value: float) -> dict[str, Any]:
    """A value without an interval."""
    return {"measure": measure, "value": float(value), "low": np.nan, "high": np.nan, "unit": ""}


def board_rows(seen: npt.NDArray[np.integer], boards: Boards) -> Rows:
    """Accuracy and reconstruction of boards read [m, 64]."""
    truth, game = boards.score.relative, boards.score.game
    hits, counts = reconstruction_counts(seen.astype(np.int8), truth)
    by_game = (np.bincount(game, weights=hits), np.bincount(game, weights=counts))
    return [
        interval_row("accuracy", *accuracy_by_group(seen == truth, game)),
        interval_row("reconstruction", *by_game),
    ]


def majority_rows(boards: Boards) -> Rows:
    """The commonest state of each tile at each ply, which needs no model."""
    right = _commonest(boards.choose.absolute, boards) == boards.score.absolute
    return [
        *board_rows(_commonest(boards.choose.relative, boards), boards),
        interval_row("accuracy_colour", *accuracy_by_group(right, boards.score.game)),
    ]


def _commonest(states: npt.NDArray[np.int8], boards: Boards) -> npt.NDArray[np.int64]:
    counts = np.zeros((60, 64, 3), np.int64)
    np.add.at(counts, (boards.choose.ply[:, None], np.arange(64), states), 1)
    commonest: npt.NDArray[np.int64] = counts.argmax(-1)[boards.score.ply]
    return commonest


def shortcut_rows(boards: Boards) -> dict[str, Rows]:
    """Two baselines that know neither owner nor stability: the ply, and the occupied tiles."""
    targets, both = boards.targets, (boards.choose, boards.score)
    plies = [labels.ply[:, None].astype(np.float32) for labels in both]
    occupied = [(labels.relative > 0).astype(np.float32) for labels in both]
    features = {"ply": plies, "occupied": occupied}
    rows = {name: coverage_rows(match(x, y, targets)) for name, (x, y) in features.items()}
    for kind in STABLE:
        columns = np.flatnonzero((targets.columns["kind"] == kind) & targets.columns["scored"])
        truth, tiles = targets.score[:, columns], targets.columns["tile"].to_numpy()[columns]
        by_ply = auroc_table(plies[1], truth)
        by_tile = np.diag(auroc_table(occupied[1][:, tiles], truth))
        rows["ply"].append(row(f"auroc_{kind}", by_ply.mean()))
        rows["ply"].append(row(f"tiles_{kind}", int((by_ply > STRONG).sum())))
        rows["occupied"].append(row(f"auroc_{kind}", by_tile.mean()))
    return rows


def _fitted(x: Tensor, labels: npt.NDArray[Any], ridge: float, passes: int) -> LinearProbe:
    """A probe, and a line in the log where the passes were not enough."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `converged_` says the same
        probe = LinearProbe(ridge, passes).fit(x, labels)
    if not probe.converged_:
        log.warning(
            "the probes' %d passes end before they converge: more may give better ones (--passes)",
            passes,
        )
    return probe


def probe_rows(x: Tensor, y: Tensor, boards: Boards, ridge: float, passes: int) -> Probes:
    """Probes for the board, fitted on the choosing games' activations x, scored on y."""
    fitted = _fitted(x, boards.choose.relative, ridge, passes)
    logits = torch.from_numpy(fitted.decision_function(y))
    seen = logits.argmax(-1).numpy()
    rows = board_rows(seen, boards)
    scored, truth = boards.targets.columns["scored"].to_numpy()[:192], boards.targets.score[:, :192]
    odds = (logits - _others(logits)).transpose(1, 2).flatten(1).numpy()
    auroc = np.full(192, np.nan)
    auroc[scored] = np.diag(auroc_table(odds[:, scored], truth[:, scored]))
    hot = np.concatenate([seen == k for k in range(3)], 1)
    f1 = 2 * (hot & truth).sum(0) / np.maximum(hot.sum(0) + truth.sum(0), 1)
    for k, kind in enumerate(STATES):
        part = slice(64 * k, 64 * k + 64)
        rows.append(row(f"auroc_{kind}", np.nanmean(auroc[part])))
        rows.append(row(f"f1_{kind}", f1[part][scored[part]].mean()))
    rows.append(row("coverage", f1[64:].mean()))
    means = _class_means(x, boards.choose.relative)
    return Probes(rows, torch.from_numpy(fitted.coef_), torch.from_numpy(fitted.intercept_), means)


def colour_rows(x: Tensor, y: Tensor, boards: Boards, ridge: float, passes: int) -> Rows:
    """A probe for {empty, black, white}."""
    fitted = _fitted(x, boards.choose.absolute, ridge, passes)
    right = fitted.predict(y) == boards.score.absolute
    return [interval_row("accuracy_colour", *accuracy_by_group(right, boards.score.game))]


def stability_rows(x: Tensor, y: Tensor, boards: Boards, ridge: float, passes: int) -> Rows:
    """Yes-or-no probes for every stable tile, by both definitions."""
    index, choose, score = boards.targets
    columns = np.flatnonzero(index["kind"].isin(STABLE) & index["scored"])
    fitted = _fitted(x, choose[:, columns].astype(np.int64), ridge, passes)
    logits = fitted.decision_function(y)
    auroc = np.diag(auroc_table(logits[..., 1] - logits[..., 0], score[:, columns]))
    kinds = index["kind"].to_numpy()[columns]
    return [row(f"auroc_{kind}", auroc[kinds == kind].mean()) for kind in STABLE]


def dictionary_rows(matched: Match, score: npt.NDArray[np.float32], boards: Boards) -> Rows:
    """A matched dictionary; `score` [m, f] are its activations on the scoring games."""
    rows = board_rows(rule_board(score, matched.rules), boards)
    rows += coverage_rows(matched)
    for kind, auroc in matched.best.groupby("kind")["auroc"].mean().items():
        rows.append(row(f"auroc_{kind}", auroc))
    kinds = boards.targets.columns["kind"].to_numpy()
    for kind in STABLE:
        strong = (matched.auroc[:, kinds == kind] > STRONG).sum(1)
        rows.append(row(f"stable_{kind}", int((strong > 0).sum())))
        rows.append(row(f"tiles_{kind}", int(strong.max())))
    return rows


def coverage_rows(matched: Match) -> Rows:
    """F1 of the best features for each kind of label, and the mean over own and enemy tiles."""
    means = matched.best.groupby("kind")["f1"].mean()
    rows = [row(f"f1_{kind}", f1) for kind, f1 in means.items()]
    return [*rows, row("coverage", means.loc[["own", "enemy"]].mean())]


def cosine_rows(matched: Match, decoder: Tensor, probes: Probes) -> Rows:
    """Cosines of the best latents' decoder rows [f, d] with the probe's vectors and the means."""
    best = matched.best[matched.best["kind"].isin(["own", "enemy"])]
    latents = decoder[best["latent_auroc"].tolist()]
    state = (best["kind"] == "enemy").to_numpy().astype(int) + 1
    tile = best["tile"].tolist()
    probe, mean = probes.coef[tile, state], probes.means[tile, state]
    nearest = (normalize(probe, dim=1) @ normalize(decoder, dim=1).T).amax(1)
    return [
        row("cosine_probe", cosine_similarity(latents, probe).mean().item()),
        row("cosine_mean", cosine_similarity(latents, mean).mean().item()),
        row("nearest_probe", nearest.mean().item()),
    ]


def autoencoder_rows(x: Tensor, z: Tensor, x_hat: Tensor, probes: Probes, boards: Boards) -> Rows:
    """What an autoencoder keeps: of the variance, and of the board."""
    logits = torch.einsum("nd,tkd->ntk", x_hat, probes.coef) + probes.intercept
    right = logits.argmax(-1).numpy() == boards.score.relative
    return [
        row("fvu", fvu(x, x_hat)),
        row("l0", float((z > 0).sum(1, dtype=torch.float64).mean())),
        interval_row("probe_through", *accuracy_by_group(right, boards.score.game)),
    ]


def _class_means(x: Tensor, states: npt.NDArray[np.int8]) -> Tensor:
    hot = one_hot(torch.from_numpy(states.astype(np.int64)), 3).float().flatten(1)
    counts = hot.sum(0)[:, None]
    means = hot.T @ x / counts.clamp_min(1) - x.mean(0)
    return torch.where(counts > 0, means, 0).view(64, 3, -1)


def _others(logits: Tensor) -> Tensor:
    """Log of the summed exponentials of the other two classes."""
    pairs = [[1, 2], [0, 2], [0, 1]]
    return torch.stack([logits[..., pair].logsumexp(-1) for pair in pairs], -1)
