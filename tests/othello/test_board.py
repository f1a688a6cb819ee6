"""The board engine against a slow engine written straight from the rules."""

import numpy as np
import pytest

from interp.othello import board
from interp.othello.games import (
    log_choices,
    random_games,
    relative_boards,
    replay,
    squares,
    tokens_of,
)

RAYS = [(dr, dc) for dr in (-1, 0, 1) for dc in (-1, 0, 1) if (dr, dc) != (0, 0)]
Cells = dict[tuple[int, int], int]


def flips_by_walking(cells: Cells, colour: int, square: int) -> list[tuple[int, int]]:
    """Discs a move would turn, walking each ray square by square."""
    turned: list[tuple[int, int]] = []
    row, col = divmod(square, 8)
    for dr, dc in RAYS:
        run = []
        at = (row + dr, col + dc)
        while cells.get(at) == 1 - colour:
            run.append(at)
            at = (at[0] + dr, at[1] + dc)
        if cells.get(at) == colour:
            turned += run
    return turned


def legal_by_walking(cells: Cells, colour: int) -> set[int]:
    return {
        s for s in range(64) if divmod(s, 8) not in cells and flips_by_walking(cells, colour, s)
    }


def as_mask(found: set[int]) -> int:
    return sum(1 << s for s in found)


def leaves(own: np.uint64, enemy: np.uint64, depth: int) -> int:
    """Move sequences of a length (at most 7, which never has a pass)."""
    moves = int(board.legal_moves(own, enemy))
    if depth == 1:
        return moves.bit_count()
    bits = (np.uint64(1 << s) for s in range(64) if moves >> s & 1)
    return sum(leaves(*map(np.uint64, board.play(own, enemy, bit)), depth - 1) for bit in bits)


def test_the_published_numbers_of_move_sequences() -> None:
    counts = [leaves(board.START_BLACK, board.START_WHITE, depth) for depth in range(1, 8)]
    assert counts == [4, 12, 56, 244, 1396, 8200, 55092]


def test_first_moves() -> None:
    first = squares(replay(np.zeros((1, 1), np.uint8)).legal)[0, 0]
    assert np.flatnonzero(first).tolist() == [19, 26, 37, 44]


def test_whole_games_agree_with_the_slow_engine() -> None:
    """Legal moves, mover (passes too) and both colours' discs at every ply, to the very end."""
    games = random_games(60, seed=3)
    # A few games with passes that the random ones may lack.
    many = random_games(3000, seed=4)
    passes = (replay(many).mover[:, :-1] == replay(many).mover[:, 1:]).sum(1)
    games = np.concatenate([games, many[np.argsort(passes)[-20:]]])
    played = replay(games)
    n_passes = 0
    for game in range(len(games)):
        cells: Cells = {(3, 4): 0, (4, 3): 0, (3, 3): 1, (4, 4): 1}
        colour = 0
        for ply in range(board.N_PLIES):
            legal = legal_by_walking(cells, colour)
            if not legal:
                colour = 1 - colour
                legal = legal_by_walking(cells, colour)
                n_passes += bool(legal)
            assert int(played.legal[game, ply]) == as_mask(legal)
            if not legal:
                assert not games[game, ply:].any()
                assert (played.mover[game, ply:] == board.NOBODY).all()
                break
            assert played.mover[game, ply] == colour
            square = int(board.SQUARE_OF_TOKEN[games[game, ply]])
            assert square in legal
            for at in [*flips_by_walking(cells, colour, square), divmod(square, 8)]:
                cells[at] = colour
            for side, mask in enumerate((played.black, played.white)):
                expected = {8 * r + c for (r, c), who in cells.items() if who == side}
                assert int(mask[game, ply]) == as_mask(expected)
            colour = 1 - colour
    assert n_passes > 20


def test_kernels_on_arbitrary_positions() -> None:
    """Positions no game reaches: runs must neither wrap round an edge nor stop short."""
    rng = np.random.default_rng(0)
    for density in rng.uniform(0.1, 0.95, 150):
        owner = np.where(rng.random(64) < density, rng.integers(0, 2, 64), -1)
        cells: Cells = {divmod(s, 8): int(owner[s]) for s in range(64) if owner[s] >= 0}
        own, enemy = (np.uint64(as_mask(set(np.flatnonzero(owner == k)))) for k in (0, 1))
        assert int(board.legal_moves(own, enemy)) == as_mask(legal_by_walking(cells, 0))
        for square in np.flatnonzero(owner == -1):
            turned = {8 * r + c for r, c in flips_by_walking(cells, 0, int(square))}
            found = board.flipped(own, enemy, np.uint64(1 << int(square)))
            assert int(found) == as_mask(turned)


def test_masks_and_boards_follow_the_replay() -> None:
    games = random_games(500, seed=1)
    played = replay(games)
    masks = tokens_of(played.legal)
    assert masks.shape == (500, 60, 61)
    assert not masks[..., 0].any()
    real = games != board.PAD
    assert np.take_along_axis(masks, games[..., None].astype(int), 2)[..., 0][real].all()
    assert (masks.sum(-1) == squares(played.legal).sum(-1)).all()
    np.testing.assert_allclose(log_choices(played)[real], np.log(masks.sum(-1)[real]))
    boards = relative_boards(played)
    white_next = played.mover[:, 1:] == board.WHITE
    assert (boards[white_next] == 1).sum() == squares(played.white[:, :-1])[white_next].sum()
    assert ((boards == -1).all(-1) == (played.mover[:, 1:] == board.NOBODY)).all()
    # After a pass the next mover is the last mover, so its own disc is where it just played.
    game, ply = np.argwhere(
        (played.mover[:, :-1] == played.mover[:, 1:]) & (played.mover[:, 1:] != board.NOBODY)
    )[0]
    assert boards[game, ply, board.SQUARE_OF_TOKEN[games[game, ply]]] == 1


def test_games_are_reproducible_and_independent_of_batching() -> None:
    games = random_games(300, seed=5, split="train")
    parts = [random_games(100, seed=5, first=k, split="train") for k in (0, 100, 200)]
    assert (games == np.concatenate(parts)).all()
    assert (games != random_games(300, seed=6, split="train")).any(1).all()
    assert len(np.unique(random_games(20_000, seed=5), axis=0)) == 20_000


def test_moves_are_uniform_over_the_legal_ones() -> None:
    games = random_games(40_000, seed=7)
    first = np.bincount(games[:, 0], minlength=61) / len(games)
    np.testing.assert_allclose(first[board.TOKEN_OF_SQUARE[[19, 26, 37, 44]]], 0.25, atol=0.01)
    assert abs(np.nanmean(log_choices(replay(games))[:, 1:]) - 2.010) < 0.003
    assert 0.985 < (games[:, -1] != board.PAD).mean() < 0.995


def held_out(games: np.ndarray) -> np.ndarray:
    return np.array([board.is_held_out(row) for row in games.astype(np.uint8)])


def test_splits_share_no_opening() -> None:
    train = random_games(20_000, seed=8, split="train")
    test = random_games(2_000, seed=8, split="held_out")
    assert not held_out(train).any()
    assert held_out(test).all()
    assert 0.01 < held_out(random_games(20_000, seed=9)).mean() < 0.022
    seen = {row[: board.PREFIX].tobytes() for row in train}
    assert not any(row[: board.PREFIX].tobytes() in seen for row in test)


def test_a_mirrored_game_stays_in_its_split() -> None:
    games = random_games(200, seed=10, split="held_out")
    at = board.SQUARE_OF_TOKEN[games]
    for turned in (8 * (at % 8) + at // 8, 63 - at, 63 - (8 * (at % 8) + at // 8)):
        mirrored = np.where(games == board.PAD, 0, board.TOKEN_OF_SQUARE[turned % 64])
        replay(mirrored)
        assert held_out(mirrored).all()


def test_illegal_games_are_refused() -> None:
    with pytest.raises(ValueError, match="game 1 is not a legal game"):
        replay(np.array([[20, 0], [1, 0]]))
    with pytest.raises(ValueError, match="not a legal game"):
        replay(np.array([[0, 20]]))
    with pytest.raises(ValueError, match="not a legal game"):
        replay(np.array([[61, 0]]))
