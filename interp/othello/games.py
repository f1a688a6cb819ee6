"""Random Othello games and what is true of them: legal moves, movers, boards.

Games are uint8 [n, 60] token arrays, 0-padded (see board.py). The training and the held-out
split share no game, and no two games across them share their first 14 moves, not even after
turning or mirroring the board: a hash of those moves decides the split (`is_held_out`), for
every seed alike.

Label by `Replay.mover`, not by the parity of the ply: after a pass the parity is wrong.
"""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from interp.othello import board

Split = Literal["train", "held_out", "any"]
_SPLITS = {"train": board.TRAIN, "held_out": board.HELD_OUT, "any": board.ANY}
_BITS = np.arange(64, dtype=np.uint64)


class Replay(NamedTuple):
    """What holds at every ply of a batch of games; all arrays are [n, T]."""

    legal: npt.NDArray[np.uint64]
    """Mask of the legal squares for move t, before it is played; 0 past the game's end.
    The ply after the last token is still answered, so an unfinished game may be asked."""
    mover: npt.NDArray[np.int8]
    """Who plays move t: 0 black, 1 white, -1 nobody."""
    black: npt.NDArray[np.uint64]
    """Black discs after move t."""
    white: npt.NDArray[np.uint64]
    """White discs after move t."""


def random_games(
    n: int, seed: int, *, first: int = 0, split: Split = "any"
) -> npt.NDArray[np.uint8]:
    """Uniformly random legal games [n, 60]: numbers first .. first + n - 1 of stream `seed`.

    Any cut of a stream into batches gives the same games, so a training run that counts
    its games can stop and resume without repeating one.
    """
    games = np.zeros((n, board.N_PLIES), dtype=np.uint8)
    board.fill_random_games(games, np.uint64(seed), first, _SPLITS[split])
    return games


def held_out(games: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """For each game [n, T >= 14], whether it belongs to the held-out split."""
    rows = np.ascontiguousarray(games, dtype=np.uint8)
    return np.array([board.is_held_out(row) for row in rows], dtype=np.bool_)


def replay(games: npt.ArrayLike) -> Replay:
    """Replay games [n, T]; an illegal or misplaced token is a ValueError."""
    tokens = np.ascontiguousarray(games, dtype=np.uint8)
    legal, black, white = (np.zeros(tokens.shape, dtype=np.uint64) for _ in range(3))
    mover = np.zeros(tokens.shape, dtype=np.int8)
    bad = board.replay_into(tokens, legal, mover, black, white)
    if bad >= 0:
        raise ValueError(f"game {bad} is not a legal game: {tokens[bad].tolist()}")
    return Replay(legal, mover, black, white)


def squares(masks: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Unpack masks [...] to booleans [..., 64]."""
    return ((masks[..., None] >> _BITS) & np.uint64(1)).astype(np.bool_)


def legal_masks(games: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Legal tokens [n, T, 61] for every move (column 0, the pad, is never legal)."""
    by_square = squares(replay(games).legal)
    masks = np.zeros((*by_square.shape[:2], board.N_PLIES + 1), dtype=np.bool_)
    masks[..., 1:] = by_square[..., board.SQUARE_OF_TOKEN[1:]]
    return masks


def relative_boards(played: Replay) -> npt.NDArray[np.int8]:
    """Board after move t as the player of move t + 1 sees it: [n, T - 1, 64].

    0 empty, 1 own, 2 enemy; -1 everywhere where nobody moves next. Row t lines up with a
    model's residual at position t, which has read moves 0 .. t.
    """
    black, white = squares(played.black[:, :-1]), squares(played.white[:, :-1])
    mover = played.mover[:, 1:, None]
    own = np.where(mover == board.BLACK, black, white)
    states = np.where(own, 1, np.where(black | white, 2, 0)).astype(np.int8)
    return np.where(mover == board.NOBODY, np.int8(-1), states)


def log_choices(played: Replay) -> npt.NDArray[np.float64]:
    """Log of the number of legal moves [n, T], NaN where there is none.

    Its mean over the plies played is the least loss any model can have on random games.
    """
    count = squares(played.legal).sum(-1)
    return np.log(np.where(count > 0, count, np.nan))
