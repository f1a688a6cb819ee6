"""Stable discs against slow loops, and against what happens in the rest of a game."""

import numpy as np
import pytest

from interp.othello.board import N_PLIES
from interp.othello.games import random_games, replay, squares
from interp.othello.stability import flipped_later, stable_discs

AXES = [(0, 1), (1, 0), (1, 1), (1, -1)]
BITS = np.arange(64, dtype=np.uint64)


def masks(boards):
    """Booleans [..., 64] -> masks [...]."""
    return (boards.astype(np.uint64) << BITS).sum(-1, dtype=np.uint64)


def sound_by_walking(colour):
    """`colour` [8, 8]: -1 empty, else 0 or 1."""

    def at(r, c):
        return colour[r, c] if 0 <= r < 8 and 0 <= c < 8 else None

    def full(r, c, dr, dc):
        for sign in (1, -1):
            k = 1
            while (there := at(r + sign * k * dr, c + sign * k * dc)) is not None:
                if there == -1:
                    return False
                k += 1
        return True

    stable: set[tuple[int, int]] = set()
    while True:
        grown = {
            (r, c)
            for r, c in np.argwhere(colour >= 0).tolist()
            if all(
                full(r, c, dr, dc)
                or any(
                    at(r + s * dr, c + s * dc) is None
                    or (
                        (r + s * dr, c + s * dc) in stable
                        and at(r + s * dr, c + s * dc) == colour[r, c]
                    )
                    for s in (1, -1)
                )
                for dr, dc in AXES
            )
        }
        if grown == stable:
            return stable
        stable = grown


def paper_by_walking(colour):
    filled = np.zeros((10, 10), bool)
    filled[1:-1, 1:-1] = colour >= 0
    stable = np.zeros((10, 10), bool)
    for r in (1, 8):
        for c in (1, 8):
            stable[r, c] = filled[r, c]
    for r in (1, 8):
        for c in range(1, 9):
            stable[r, c] |= filled[r, c] and (stable[r, c - 1] or stable[r, c + 1])
    for c in (1, 8):
        for r in range(1, 9):
            stable[r, c] |= filled[r, c] and (stable[r - 1, c] or stable[r + 1, c])
    for r in range(2, 8):
        for c in range(2, 8):
            ring = stable[r - 1 : r + 2, c - 1 : c + 2].copy()
            ring[1, 1] = True
            stable[r, c] |= filled[r, c] and bool(ring.all())
    return {(r - 1, c - 1) for r, c in np.argwhere(stable).tolist()}


def some_boards(n):
    """Boards of random games and arbitrary dense ones, which have full lines: [n, 64] colours."""
    played = replay(random_games(n, seed=21))
    rng = np.random.default_rng(0)
    ply = rng.integers(20, 60, n)
    black, white = (squares(m[np.arange(n), ply]) for m in (played.black, played.white))
    games = np.where(black, 0, np.where(white, 1, -1))
    dense = np.where(
        rng.random((n, 64)) < rng.uniform(0.5, 1, (n, 1)), rng.integers(0, 2, (n, 64)), -1
    )
    # Half of the dense ones have few colours' borders, so that stable regions grow.
    dense[::2] = np.where(
        dense[::2] >= 0, np.arange(64) // 8 < rng.integers(0, 9, (len(dense[::2]), 1)), -1
    )
    return np.concatenate([games, dense])


def label(colours):
    return stable_discs(masks(colours == 0), masks(colours == 1))


def test_labels_agree_with_the_walks() -> None:
    colours = some_boards(150)
    for by_walking, found in zip((paper_by_walking, sound_by_walking), label(colours), strict=True):
        n_stable = 0
        for board, mask in zip(colours, squares(found), strict=True):
            expected = by_walking(board.reshape(8, 8))
            assert {divmod(s, 8) for s in np.flatnonzero(mask)} == expected
            n_stable += len(expected)
        assert n_stable > 1000


def test_sound_labels_keep_under_symmetries_and_colour_swap() -> None:
    colours = some_boards(500)
    _, found = label(colours)
    grid, stable = colours.reshape(-1, 8, 8), squares(found).reshape(-1, 8, 8)
    for turns in range(4):
        for mirror in (False, True):

            def moved(x, turns=turns, mirror=mirror):
                x = np.rot90(x, turns, axes=(1, 2))
                return (x[:, :, ::-1] if mirror else x).reshape(len(x), 64)

            _, again = label(moved(grid))
            assert (squares(again) == moved(stable)).all()
    _, swapped = label(np.where(colours >= 0, 1 - colours, -1))
    assert (swapped == found).all()


def test_paper_labels_do_not_keep_under_mirroring() -> None:
    """A bottom row filled from its right corner gets two labels, its mirror image all five."""
    colours = np.full((1, 64), -1)
    colours[0, 59:64] = 0
    mirrored = colours.reshape(1, 8, 8)[:, :, ::-1].reshape(1, 64)
    assert squares(label(colours)[0]).sum() == 2
    assert squares(label(mirrored)[0]).sum() == 5


def flipped_shares(n_games):
    """Discs labelled stable in random games: how many are flipped later, and how many there are."""
    labelled, failed = np.zeros(2, int), np.zeros(2, int)
    for first in range(0, n_games, 5000):
        n = min(5000, n_games - first)
        played = replay(random_games(n, seed=22, first=first))
        later = flipped_later(played)
        for k, stable in enumerate(stable_discs(played.black, played.white)):
            labelled[k] += int(np.bitwise_count(stable).sum())
            failed[k] += int(np.bitwise_count(stable & later).sum())
    return failed, labelled


def test_flipped_later_by_replaying() -> None:
    played = replay(random_games(20, seed=23))
    later = squares(flipped_later(played))
    black, white = squares(played.black), squares(played.white)
    for t in range(N_PLIES):
        for colour in (black, white):
            kept = colour[:, t : t + 1] & colour[:, t:]
            assert (later[:, t][colour[:, t]] == ~kept.all(1)[colour[:, t]]).all()


def test_no_sound_disc_is_ever_flipped() -> None:
    failed, labelled = flipped_shares(10_000)
    assert labelled[1] > 1_000_000
    assert failed[1] == 0
    assert 0.09 < failed[0] / labelled[0] < 0.13  # the paper's labels: about one in nine


@pytest.mark.slow
def test_no_sound_disc_is_ever_flipped_in_100k_games() -> None:
    failed, labelled = flipped_shares(100_000)
    assert labelled[1] > 10_000_000
    assert failed[1] == 0
