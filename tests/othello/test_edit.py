"""Flipping discs in the board a model represents: cases, identity at scale 0, and the effect."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import normalize

from interp.directions import Directions
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.othello import board
from interp.othello.board_labels import label_boards, read_activations
from interp.othello.edit import chosen_scales
from interp.othello.games import random_games
from interp.othello.interventions import (
    add_at_last,
    count_errors,
    find_cases,
    flip_vector,
    legal_after_flip,
    top_errors,
)
from interp.othello.position import position_after
from interp.probes import LinearProbe

from .test_board import as_mask, legal_by_walking


@pytest.fixture(scope="module")
def games():
    return random_games(400, seed=41, split="held_out")


@pytest.fixture(scope="module")
def subject():
    return open_subject("othello-gpt")


def test_cases_are_positions_whose_legal_moves_the_disc_changes(games) -> None:
    cases = find_cases(games, 60, seed=0)
    assert len({case.game for case in cases}) == len(cases) == 60
    for case in cases:
        position = position_after(games[case.game, : case.ply + 1])
        assert position.relative[case.tile] == case.present
        assert case.legal == as_mask(set(np.flatnonzero(position.legal).tolist()))
        edited = position.relative.copy()
        edited[case.tile] = 3 - case.present
        cells = {divmod(s, 8): int(edited[s]) - 1 for s in range(64) if edited[s]}
        assert case.legal_edited == as_mask(legal_by_walking(cells, 0))
        assert legal_after_flip(position.relative, case.tile) == case.legal_edited
        assert case.legal_edited not in (0, case.legal)
    assert find_cases(games, 60, seed=0) == cases != find_cases(games, 60, seed=1)


def test_scale_zero_changes_nothing_bit_for_bit(subject, games) -> None:
    ids = torch.from_numpy(games[:50, :20].astype(np.int64))
    vectors = torch.randn(50, 128, generator=torch.Generator().manual_seed(0))
    plain = subject.logits(ids)
    with subject.edited(*[add_at_last(layer, vectors, 0.0) for layer in range(4)]):
        assert torch.equal(subject.logits(ids), plain)
    with subject.edited(add_at_last(1, vectors, 1.0)):
        moved = subject.logits(ids)
    assert torch.equal(moved[:, :-1], plain[:, :-1])  # only the last position is edited
    assert not torch.equal(moved[:, -1], plain[:, -1])
    assert torch.equal(subject.logits(ids), plain)


def test_each_row_gets_its_own_vector(subject, games) -> None:
    ids = torch.from_numpy(games[:3, :12].astype(np.int64))
    vectors = torch.randn(3, 128, generator=torch.Generator().manual_seed(1))
    site = Site("resid_post", 2)
    before = subject.capture(ids, [site])[site]
    with subject.edited(add_at_last(2, vectors, 5.0)):
        after = subject.capture(ids, [site])[site]
    torch.testing.assert_close(after[:, -1] - before[:, -1], 5 * vectors, rtol=1e-4, atol=1e-4)


def test_errors_by_counting() -> None:
    legal = as_mask({19, 26, 37, 44})
    tokens = board.TOKEN_OF_SQUARE[[19, 26, 37, 44]].tolist()
    others = [t for t in range(61) if t not in tokens]
    orders = [tokens + others, others + tokens, [*tokens[:3], *others, tokens[3]]]
    assert top_errors(np.array(orders), [legal] * 3).tolist() == [0, 8, 2]


def test_a_flip_points_from_the_present_state_to_the_other() -> None:
    index = pd.DataFrame({"name": list("abc"), "kind": ["own", "enemy", "own"], "tile": [5, 5, 6]})
    vectors = torch.tensor([[3.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    found = Directions(Site("resid_post", 0), vectors, index)
    unit = torch.tensor([-3.0, 1.0]) / 10**0.5
    torch.testing.assert_close(flip_vector(found, 5, 1), unit)
    torch.testing.assert_close(flip_vector(found, 5, 2), -unit)
    latents = Directions(Site("resid_post", 0), vectors, index.assign(latent=0))
    torch.testing.assert_close(flip_vector(latents, 5, 1), torch.tensor([-1.0, 1.0]) / 2**0.5)


def test_the_probe_flips_discs_in_the_shipped_model(subject, games) -> None:
    """Quick probes of all layers but the last: fewer errors than unedited, or edited at random."""
    fit, n = random_games(60, seed=42, split="train"), 200
    labels, cases = label_boards(fit), find_cases(games, n, seed=0)
    sites = [Site("resid_post", layer) for layer in range(3)]
    residuals = read_activations(subject, fit, sites, labels.kept)
    generator = torch.Generator().manual_seed(0)
    along, random = {}, {}
    for layer, x in enumerate(residuals.values()):
        coef = torch.from_numpy(LinearProbe(1e-3, max_iter=8).fit(x, labels.relative).coef_)
        pairs = [(coef[c.tile, 3 - c.present], coef[c.tile, c.present]) for c in cases]
        along[layer] = normalize(torch.stack([a - b for a, b in pairs]), dim=1)
        random[layer] = normalize(torch.randn(n, 128, generator=generator), dim=1)
    unedited, edited, astray = (
        count_errors(subject, games, cases, vectors, scale)
        for vectors, scale in ((along, 0.0), (along, 5.0), (random, 5.0))
    )
    for other in (unedited, astray):
        saved = other.edited - edited.edited
        assert saved.mean() > 3 * saved.std() / len(saved) ** 0.5
    assert edited.own.mean() > unedited.own.mean()  # it no longer plays on the board as it is


def test_scales_are_chosen_on_one_half_and_scored_on_the_other() -> None:
    rows = [
        {"reader": "probe", "seed": 0, "layers": "0", "scale": s, "half": h, "errors": e,
         "errors_own": 2.0, "positions": 5}
        for h, errors in (("choose", [4.0, 3.0, 3.5]), ("score", [4.0, 3.6, 1.0]))
        for s, e in zip([0.0, 1.0, 2.0], errors, strict=True)
    ]  # fmt: skip
    chosen = chosen_scales(pd.DataFrame(rows)).iloc[0]
    assert (chosen["scale"], chosen["errors"]) == (1.0, 3.6)
    assert chosen["closed"] == pytest.approx(0.4 / 2)
