"""Labels of boards against slow answers, and matching against planted dictionaries."""

import sys
import time

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from interp.model.site import Site
from interp.model.subject import open_subject
from interp.othello import board
from interp.othello.board_labels import (
    STABLE,
    STATES,
    TILES,
    label_boards,
    read_activations,
    tile_index,
    yes_no_labels,
)
from interp.othello.games import random_games
from interp.othello.match import auroc_table, match, reconstruction_counts, rule_board, targets
from interp.othello.position import position_after
from interp.othello.readers import (
    Boards,
    colour_rows,
    dictionary_rows,
    majority_rows,
    probe_rows,
    shortcut_rows,
    stability_rows,
)
from interp.othello.sae import SAES
from interp.probes.metrics import as_array
from interp.saes import open_sae


def values(rows):
    return {row["measure"]: row["value"] for row in rows}


@pytest.fixture(scope="module")
def boards():
    choose = label_boards(random_games(60, seed=31, split="train"))
    score = label_boards(random_games(60, seed=32, split="held_out"))
    return Boards(choose, score, targets(choose, score))


def planted(labels, rng, width=140):
    """Activations that hold every label linearly, beside noise: [n, width]."""
    hot = np.concatenate([labels.relative == k for k in range(3)], 1).astype(np.float32)
    mixed = hot @ rng.normal(size=(192, width)).astype(np.float32)
    return torch.from_numpy(mixed + 0.01 * rng.normal(size=mixed.shape).astype(np.float32))


def test_labels_are_those_of_the_positions() -> None:
    games = random_games(30, seed=30)
    labels = label_boards(games)
    assert labels.kept.sum() == len(labels.game)
    for row in np.random.default_rng(0).choice(len(labels.game), 60):
        position = position_after(games[labels.game[row], : labels.ply[row] + 1])
        assert position.mover != board.NOBODY
        for name in ("relative", "absolute", "paper", "sound"):
            assert (getattr(labels, name)[row] == getattr(position, name)).all()
    marks, index = yes_no_labels(labels), tile_index(STATES + STABLE)
    column = index.index[index["name"] == "enemy c4"][0]
    assert (marks[:, column] == (labels.relative[:, TILES.index("c4")] == 2)).all()


def test_activations_line_up_with_the_labels(tiny) -> None:
    games = random_games(150, seed=33)  # more than a batch
    labels = label_boards(games)
    subject, site = open_subject(str(tiny)), Site("resid_post", 1)
    found = read_activations(subject, games, [site], labels.kept)[site]
    for row in (0, 59, len(found) - 1):
        ids = torch.from_numpy(games[labels.game[row], : labels.ply[row] + 1].astype(np.int64))
        alone = subject.capture(ids[None], [site])[site][0, -1]
        torch.testing.assert_close(found[row], alone, rtol=1e-4, atol=1e-5)


def test_a_planted_dictionary_is_found_and_rebuilds_the_board(boards) -> None:
    """One latent per label, in another order, beside dead and random ones."""
    rng = np.random.default_rng(0)
    order = rng.permutation(320)

    def dictionary(labels):
        marks = yes_no_labels(labels)
        sizes = rng.uniform(1, 2, marks.shape)
        noise = np.maximum(rng.normal(size=(len(marks), 40)), 0)
        dead = np.zeros((len(marks), 3))
        return np.concatenate([(marks * sizes)[:, order], noise, dead], 1).astype(np.float32)

    choose, score = dictionary(boards.choose), dictionary(boards.score)
    found = match(choose, score, boards.targets)
    index = boards.targets.columns
    column = {name: k for k, name in enumerate(index["name"])}
    for row in found.best.to_dict("records"):
        right = boards.targets.choose[:, order[row["latent_auroc"]]]
        assert (right == boards.targets.choose[:, column[row["name"]]]).all()
        assert row["auroc"] == pytest.approx(1)
        assert row["f1"] == pytest.approx(1)
    assert len(found.best) == index["scored"].sum() > 250
    assert not (index["name"][index["scored"]] == "empty d4").any()  # never empty
    rows = values(dictionary_rows(found, score, boards))
    assert rows["coverage"] == pytest.approx(1)
    # a tile that is seldom own in the choosing games may not have the support for a rule
    assert rows["reconstruction"] > 0.99
    assert rows["accuracy"] > 0.99


def test_features_are_not_chosen_on_the_games_they_are_scored_on(boards) -> None:
    """Noise wins by luck on the choosing games, and shows it on the others."""
    rng = np.random.default_rng(1)
    choose, score = (
        np.maximum(rng.normal(size=(len(labels.game), 400)), 0).astype(np.float32)
        for labels in (boards.choose, boards.score)
    )
    found = match(choose, score, boards.targets)
    columns = np.flatnonzero(boards.targets.columns["scored"])
    assert np.nanmean(found.auroc[:, columns].max(0)) > 0.52
    assert abs(found.best["auroc"].mean() - 0.5) < 0.01


def test_rules_fire_from_the_first_threshold_that_is_precise() -> None:
    """Latent 0 means own a1 only when it is strong."""
    rng = np.random.default_rng(2)
    games = label_boards(random_games(60, seed=34))
    both = targets(games, games)
    own = games.relative[:, 0] == 1
    strength = np.where(own, 10.0, rng.choice([1.0, 3.0], len(own)))
    features = np.stack([strength, np.zeros(len(own))], 1).astype(np.float32)
    found = match(features, features, both)
    assert found.rules[0, 0] == pytest.approx(3.0)  # above it own boards alone are left
    assert np.isinf(found.rules[1]).all()
    seen = rule_board(features, np.where(np.arange(128) == 0, found.rules, np.inf))
    assert ((seen[:, 0] == 1) == own).all()
    assert not seen[:, 1:].any()


def test_reconstruction_by_counting() -> None:
    rng = np.random.default_rng(3)
    seen = rng.integers(0, 4, (50, 64)).astype(np.int8)
    truth = rng.integers(0, 3, (50, 64)).astype(np.int8)
    hits, counts = reconstruction_counts(seen, truth)
    for row in range(50):
        tp = fp = fn = 0
        for claim, state in zip(seen[row], truth[row], strict=True):
            claimed = {1: {1}, 2: {2}, 3: {1, 2}, 0: set()}[int(claim)]
            fp += len(claimed - {state})
            if state and state in claimed:
                tp += claim != 3  # a contradiction is no hit
            elif state:
                fn += 1
        assert (hits[row], counts[row]) == (2 * tp, 2 * tp + fp + fn)


def test_probes_read_what_is_planted(boards) -> None:
    rng = np.random.default_rng(4)
    mixing = np.random.default_rng(5)
    x = planted(boards.choose, mixing)
    mixing = np.random.default_rng(5)
    y = planted(boards.score, mixing)
    found = probe_rows(x, y, boards, 1e-4, 10)
    rows = values(found.rows)
    assert rows["accuracy"] > 0.999
    assert rows["reconstruction"] > 0.999
    assert rows["auroc_own"] > 0.999
    assert found.coef.shape == (64, 3, 140)
    # black and white are not in it, but for the parity of the ply that own and enemy go with
    assert values(colour_rows(x, y, boards, 1e-4, 10))["accuracy_colour"] < 0.95
    noise, other = (
        torch.from_numpy(rng.normal(size=part.shape).astype(np.float32)) for part in (x, y)
    )
    lost = values(probe_rows(noise, other, boards, 1.0, 5).rows)
    majority = values(majority_rows(boards))
    assert lost["accuracy"] < majority["accuracy"] < 0.7
    stable = values(stability_rows(x, y, boards, 1e-4, 10))
    assert stable["auroc_sound"] > 0.9


def test_class_means_by_definition(boards) -> None:
    x = planted(boards.choose, np.random.default_rng(6), width=8)
    y = planted(boards.score, np.random.default_rng(6), width=8)
    means = probe_rows(x, y, boards, 1e-2, 2).means
    tile = TILES.index("e3")
    chosen = torch.from_numpy(boards.choose.relative[:, tile] == 2)
    torch.testing.assert_close(means[tile, 2], x[chosen].mean(0) - x.mean(0), rtol=1e-3, atol=1e-3)
    assert not means[TILES.index("d4"), 0].any()  # never empty


def test_the_ply_alone_predicts_stable_discs(boards) -> None:
    found = {name: values(rows) for name, rows in shortcut_rows(boards).items()}
    assert found["ply"]["auroc_sound"] > 0.9
    assert found["ply"]["tiles_sound"] > 40
    assert 0.5 < found["occupied"]["auroc_sound"] < 0.95


@pytest.mark.slow
def test_all_aurocs_of_a_layer_are_scikit_learns_and_a_hundred_times_faster(capsys) -> None:
    """1,024 latents x 320 labels x 100k boards; scikit-learn on 40 pairs, extrapolated to all."""
    games = random_games(1750, seed=35, split="held_out")
    labels = label_boards(games)
    marks = yes_no_labels(labels)
    sae = open_sae(SAES / "saes" / "topk-L2-S0")
    stream = read_activations(
        open_subject("othello-gpt"), games, [Site("resid_post", 2)], labels.kept
    )
    latents = as_array(sae.encode(stream[Site("resid_post", 2)]))
    assert len(latents) > 100_000
    auroc_table(latents[:2000], marks[:2000])  # compile
    start = time.perf_counter()
    found = auroc_table(latents, marks)
    ours = time.perf_counter() - start
    rng = np.random.default_rng(0)
    pairs = [(rng.integers(1024), rng.choice(np.flatnonzero(marks.any(0)))) for _ in range(40)]
    start = time.perf_counter()
    theirs = [roc_auc_score(marks[:, label], latents[:, latent]) for latent, label in pairs]
    extrapolated = (time.perf_counter() - start) / len(pairs) * found.size
    np.testing.assert_allclose([found[pair] for pair in pairs], theirs, atol=1e-6)
    with capsys.disabled():
        sys.stdout.write(f"\n{ours:.1f} s; scikit-learn {extrapolated:.0f} s (extrapolated)\n")
    assert extrapolated > 100 * ours
