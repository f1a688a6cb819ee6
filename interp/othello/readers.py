"""The readers of the comparison, each scored on the same held-out boards of one layer.

A reader gives rows `measure, value, low, high` (the ends of a 95 % interval by game, where a
bootstrap makes sense):

    accuracy         tiles of the board {empty, own, enemy} read right (a dictionary's board is its
                     rules': no claim means empty)
    accuracy_colour  the same for {empty, black, white}
    auroc_<kind>     mean over tiles of the AUROC for empty, own, enemy, paper, sound
    f1_<kind>        mean over tiles of the F1
    coverage         mean F1 over own and enemy tiles
    reconstruction   F1 over own and enemy tiles of the board read
    stable_<kind>    features with an AUROC over .8 for a stable tile; tiles_<kind>: the most tiles
                     of one feature
    cosine_probe, cosine_mean   mean cosine of the best latents' decoder rows with the probe's class
                     vectors, and with the class means (less the overall mean), own and enemy
    nearest_probe    mean over classes of the largest cosine of any decoder row
    probe_through    accuracy of the layer's probe on an autoencoder's reconstructions
    fvu, l0          of an autoencoder, on the scoring games
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from interp.probes.linear import LinearProbe
from interp.probes.metrics import fvu

from ..runs.intervals import Interval, accuracy_by_group, bootstrap
from .facts import Facts
from .match import Asked, Match, auroc_table, match, reconstruction_counts, rule_board

Rows = list[dict[str, Any]]
STRONG = 0.8
"""AUROC from which the paper calls a latent a stability feature."""


class Boards(NamedTuple):
    """The choosing and the scoring games."""

    choose: Facts
    score: Facts
    asked: Asked


class Probes(NamedTuple):
    """Linear read-outs of one layer."""

    rows: Rows
    coef: Tensor
    """[64, 3, d]: class vectors of {empty, own, enemy}, centred over classes."""
    intercept: Tensor
    """[64, 3]"""
    means: Tensor
    """[64, 3, d]: mean activation of each class less the overall mean; 0 for one never seen."""


def interval_row(measure: str, found: Interval) -> dict[str, Any]:
    return {"measure": measure, **found._asdict()}


def row(measure: str, value: float) -> dict[str, Any]:
    return {"measure": measure, "value": float(value), "low": np.nan, "high": np.nan}


def board_rows(seen: npt.NDArray[np.integer], boards: Boards) -> Rows:
    """Accuracy and reconstruction of boards read [m, 64]."""
    truth, game = boards.score.relative, boards.score.game
    hits, counts = reconstruction_counts(seen.astype(np.int8), truth)
    by_game = (np.bincount(game, weights=hits), np.bincount(game, weights=counts))
    return [
        interval_row("accuracy", bootstrap(*accuracy_by_group(seen == truth, game))),
        interval_row("reconstruction", bootstrap(*by_game)),
    ]


def majority_rows(boards: Boards) -> Rows:
    """The commonest state of each tile at each ply, which needs no model."""
    found = board_rows(_commonest(boards.choose.relative, boards), boards)
    right = _commonest(boards.choose.absolute, boards) == boards.score.absolute
    colour = bootstrap(*accuracy_by_group(right, boards.score.game))
    return [*found, interval_row("accuracy_colour", colour)]


def _commonest(states: npt.NDArray[np.int8], boards: Boards) -> npt.NDArray[np.int64]:
    counts = np.stack(
        [
            np.stack([np.bincount(boards.choose.ply, s == k, minlength=60) for s in states.T], 1)
            for k in range(3)
        ]
    )
    found: npt.NDArray[np.int64] = counts.argmax(0)[boards.score.ply]
    return found


def shortcut_rows(boards: Boards) -> dict[str, Rows]:
    """How well what knows neither owner nor stability tells them: the ply, and occupancy."""
    ply = boards.score.ply[:, None].astype(np.float32)
    occupied = (boards.score.relative > 0).astype(np.float32)
    asked = boards.asked
    before = (
        boards.choose.ply[:, None].astype(np.float32),
        (boards.choose.relative > 0).astype(np.float32),
    )
    found: dict[str, Rows] = {
        "ply": coverage_rows(match(before[0], ply, asked)),
        "occupied": coverage_rows(match(before[1], occupied, asked)),
    }
    for kind in ("paper", "sound"):
        columns = np.flatnonzero((asked.columns["kind"] == kind) & asked.columns["asked"])
        tiles = asked.columns["tile"].to_numpy()[columns]
        truth = asked.score[:, columns]
        found["ply"].append(row(f"auroc_{kind}", auroc_table(ply, truth).mean()))
        found["occupied"].append(
            row(f"auroc_{kind}", np.diag(auroc_table(occupied[:, tiles], truth)).mean())
        )
        strong = int((auroc_table(ply, truth) > STRONG).sum())
        found["ply"].append(row(f"tiles_{kind}", strong))
    return found


def probe_rows(x: Tensor, y: Tensor, boards: Boards, ridge: float, passes: int) -> Probes:
    """Probes for the board, fitted on the choosing games' activations x, scored on y."""
    fitted = LinearProbe(ridge, passes).fit(x, boards.choose.relative)
    logits = torch.from_numpy(fitted.decision_function(y))
    seen = logits.argmax(-1).numpy()
    rows = board_rows(seen, boards)
    index, truth = boards.asked.columns, boards.asked.score
    odds = (logits - _others(logits)).transpose(1, 2).flatten(1).numpy()
    columns = np.flatnonzero(index["asked"].iloc[:192])
    auroc = np.full(192, np.nan)
    auroc[columns] = np.diag(auroc_table(odds[:, columns], truth[:, columns]))
    hot = np.concatenate([seen == k for k in range(3)], 1)
    f1 = 2 * (hot & truth[:, :192]).sum(0) / np.maximum(hot.sum(0) + truth[:, :192].sum(0), 1)
    for k, kind in enumerate(("empty", "own", "enemy")):
        part = slice(64 * k, 64 * k + 64)
        rows.append(row(f"auroc_{kind}", np.nanmean(auroc[part])))
        rows.append(row(f"f1_{kind}", f1[part][index["asked"].to_numpy()[part]].mean()))
    rows.append(row("coverage", f1[64:].mean()))
    means = _class_means(x, boards.choose.relative)
    coef, intercept = torch.from_numpy(fitted.coef_), torch.from_numpy(fitted.intercept_)
    return Probes(rows, coef, intercept, means)


def colour_rows(x: Tensor, y: Tensor, boards: Boards, ridge: float, passes: int) -> Rows:
    fitted = LinearProbe(ridge, passes).fit(x, boards.choose.absolute)
    right = fitted.predict(y) == boards.score.absolute
    found = bootstrap(*accuracy_by_group(right, boards.score.game))
    return [interval_row("accuracy_colour", found)]


def stability_rows(x: Tensor, y: Tensor, boards: Boards, ridge: float, passes: int) -> Rows:
    """Yes-or-no probes for every stable tile, by both definitions."""
    index = boards.asked.columns
    columns = np.flatnonzero(index["kind"].isin(["paper", "sound"]) & index["asked"])
    marks = boards.asked.choose[:, columns].astype(np.int64)
    fitted = LinearProbe(ridge, passes).fit(x, marks)
    logits = fitted.decision_function(y)
    auroc = np.diag(auroc_table(logits[..., 1] - logits[..., 0], boards.asked.score[:, columns]))
    kinds = index["kind"].to_numpy()[columns]
    return [row(f"auroc_{kind}", auroc[kinds == kind].mean()) for kind in ("paper", "sound")]


def dictionary_rows(found: Match, score: npt.NDArray[np.float32], boards: Boards) -> Rows:
    """A matched dictionary; `score` [m, f] are its activations on the scoring games."""
    rows = board_rows(rule_board(score, found.rules), boards)
    rows += coverage_rows(found)
    for kind, auroc in found.best.groupby("kind")["auroc"].mean().items():
        rows.append(row(f"auroc_{kind}", auroc))
    kinds = boards.asked.columns["kind"].to_numpy()
    for kind in ("paper", "sound"):
        strong = (found.auroc[:, kinds == kind] > STRONG).sum(1)
        rows.append(row(f"stable_{kind}", int((strong > 0).sum())))
        rows.append(row(f"tiles_{kind}", int(strong.max())))
    return rows


def coverage_rows(found: Match) -> Rows:
    """F1 of the best features for each kind of fact, and the mean over own and enemy tiles."""
    means = found.best.groupby("kind")["f1"].mean()
    rows = [row(f"f1_{kind}", f1) for kind, f1 in means.items()]
    return [*rows, row("coverage", means.loc[["own", "enemy"]].mean())]


def cosine_rows(found: Match, decoder: Tensor, probes: Probes) -> Rows:
    """How far the best latents' decoder rows [f, d] point where the probe's vectors do."""
    best = found.best[found.best["kind"].isin(["own", "enemy"])]
    latents = decoder[best["latent_auroc"].tolist()]
    state = (best["kind"] == "enemy").to_numpy().astype(int) + 1
    tile = best["tile"].tolist()
    cosine = torch.nn.functional.cosine_similarity
    probe, mean = probes.coef[tile, state], probes.means[tile, state]
    unit = torch.nn.functional.normalize
    nearest = (unit(probe, dim=1) @ unit(decoder, dim=1).T).amax(1)
    return [
        row("cosine_probe", cosine(latents, probe).mean().item()),
        row("cosine_mean", cosine(latents, mean).mean().item()),
        row("nearest_probe", nearest.mean().item()),
    ]


def autoencoder_rows(x: Tensor, z: Tensor, x_hat: Tensor, probes: Probes, boards: Boards) -> Rows:
    """What an autoencoder keeps: of the variance, and of the board."""
    logits = torch.einsum("nd,tkd->ntk", x_hat, probes.coef) + probes.intercept
    right = logits.argmax(-1).numpy() == boards.score.relative
    through = bootstrap(*accuracy_by_group(right, boards.score.game))
    return [
        row("fvu", fvu(x, x_hat)),
        row("l0", float((z > 0).sum(1, dtype=torch.float64).mean())),
        interval_row("probe_through", through),
    ]


def _class_means(x: Tensor, states: npt.NDArray[np.int8]) -> Tensor:
    codes = torch.from_numpy(states.astype(np.int64))
    hot = torch.nn.functional.one_hot(codes, 3).float().flatten(1)
    counts = hot.sum(0)[:, None]
    means = hot.T @ x / counts.clamp_min(1) - x.mean(0)
    found: Tensor = torch.where(counts > 0, means, 0).view(64, 3, -1)
    return found


def _others(logits: Tensor) -> Tensor:
    """Log of the summed exponentials of the other two classes."""
    pairs = [[1, 2], [0, 2], [0, 1]]
    return torch.stack([logits[..., pair].logsumexp(-1) for pair in pairs], -1)
