"""Random Othello games, and what a replay says of them: legal moves, movers, boards.

Games are uint8 [n, 60] token arrays, 0-padded (see board.py). No game of the training split shares
its first 14 moves with a game of the held-out split, not even after turning or mirroring the board:
a hash of those moves decides the split (`board.is_held_out`), for every seed alike.

Label by `Replay.mover`, not by the parity of the ply: after a pass the parity is wrong.
"""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from . import board

Split = Literal["train", "held_out", "any"]
_SPLITS = {"train": board.TRAIN, "held_out": board.HELD_OUT, "any": board.ANY}
_BITS = np.arange(64, dtype=np.uint64)


class Replay(NamedTuple):
    """Every ply of a batch of games; all arrays are [n, T]."""

    legal: npt.NDArray[np.uint64]
    """Mask of the legal squares for move t, before it is played; 0 past the game's end.
    The ply after the last token of an unfinished game has its legal squares too."""
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

    A stream gives the same games however it is cut into batches, so a training that counts its
    games can stop and resume without repeating one.
    """
    games = np.zeros((n, board.N_PLIES), dtype=np.uint8)
    board.fill_random_games(games, np.uint64(seed), first, _SPLITS[split])
    return games


def replay(games: npt.ArrayLike) -> Replay:
    """Replay games [n, T].

    Raises:
        ValueError: an illegal move, or a token after the game's end.
    """
    tokens = np.ascontiguousarray(games, dtype=np.uint8)
    legal, black, white = (np.zeros(tokens.shape, dtype=np.uint64) for _ in range(3))
    mover = np.zeros(tokens.shape, dtype=np.int8)
    bad = board.replay_into(tokens, legal, mover, black, white)
    if bad >= 0:
        raise ValueError(f"game {bad} is not a legal game: {tokens[bad].tolist()}")
    return Replay(legal, mover, black, white)


def squares(masks: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Unpack masks [...] to booleans [..., 64]."""
    bits = (np.asarray(masks, np.uint64)[..., None] >> _BITS) & np.uint64(1)
    return bits.astype(np.bool_)


def tokens_of(masks: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Unpack masks of playable squares [...] to tokens [..., 61] (never 0, the pad)."""
    played = squares(masks)[..., board.SQUARE_OF_TOKEN]
    played[..., board.PAD] = False
    return played


def relative_boards(played: Replay) -> npt.NDArray[np.int8]:
    """Board after move t as the player of move t + 1 sees it: [n, T - 1, 64].

    0 empty, 1 own, 2 enemy; -1 on all squares where nobody moves next. Row t belongs to a model's
    residual at position t, which has read moves 0 .. t.
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
    count = np.bitwise_count(played.legal)
    return np.log(np.where(count > 0, count, np.nan))
