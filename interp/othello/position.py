"""One position of a game: the board, the legal moves, and the moves that a model predicts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from . import board
from .board_labels import TILES
from .games import replay, squares
from .stability import stable_discs

if TYPE_CHECKING:
    from ..model.edits import Edit
    from ..model.subject import Subject


PLAYERS = {board.BLACK: "black", board.WHITE: "white", board.NOBODY: "nobody"}


class Position(NamedTuple):
    """The board after some moves."""

    tokens: npt.NDArray[np.uint8]
    """The moves, as the model reads them."""
    mover: int
    """Who plays next: 0 black, 1 white, -1 nobody."""
    absolute: npt.NDArray[np.int8]
    """[64]: 0 empty, 1 black, 2 white."""
    relative: npt.NDArray[np.int8]
    """[64]: 0 empty, 1 own, 2 enemy, as the next player sees it (as black does at the end)."""
    legal: npt.NDArray[np.bool_]
    """[64]: squares the next player may play."""
    paper: npt.NDArray[np.bool_]
    """[64]: stable discs by the paper's code."""
    sound: npt.NDArray[np.bool_]
    """[64]: discs that no continuation can flip."""


def parse_moves(text: str) -> npt.NDArray[np.uint8]:
    """'f5 d6 c3' as tokens.

    Raises:
        UserError: a word that is not the name of a square, or names one of the four in the middle.
    """
    tokens = []
    for word in re.findall(r"[^\s,]+", text.lower()):
        tokens.append(board.TOKEN_OF_SQUARE[TILES.index(word)] if word in TILES else board.PAD)
        if tokens[-1] == board.PAD:
            raise UserError(f"'{word}' is not a square one can play: write f5 d6 c3, for example")
    return np.array(tokens, np.uint8)


def position_after(tokens: Sequence[int] | npt.NDArray[np.uint8]) -> Position:
    """The position after some moves.

    Raises:
        UserError: an illegal move.
    """
    moves = np.asarray(tokens, np.uint8)
    row = np.zeros((1, len(moves) + 1), np.uint8)  # its last ply is not played
    row[0, :-1] = moves
    try:
        played = replay(row)
    except ValueError as error:
        raise UserError(_illegal(moves)) from error
    black, white, legal = (masks[0, -1:] for masks in (played.black, played.white, played.legal))
    mover = int(played.mover[0, -1])
    absolute = (squares(black)[0] + 2 * squares(white)[0]).astype(np.int8)
    relative = absolute if mover != board.WHITE else ((3 - absolute) % 3).astype(np.int8)
    masks = (legal, *stable_discs(black, white))
    return Position(moves, mover, absolute, relative, *(squares(mask)[0] for mask in masks))


def _illegal(moves: npt.NDArray[np.uint8]) -> str:
    """Which of some moves is the first that is not legal, and what is instead."""
    at = next(n for n in range(len(moves)) if not _is_legal(moves[: n + 1]))
    before = position_after(moves[:at])
    can = ", ".join(TILES[square] for square in np.flatnonzero(before.legal)) or "none"
    after = f"after {move_names(moves[:at])}" if at else "at the start"
    return f"move {at + 1}, {move_names(moves[at : at + 1])}, is not legal {after}: legal are {can}"


def _is_legal(moves: npt.NDArray[np.uint8]) -> bool:
    try:
        replay(moves[None])
    except ValueError:
        return False
    return True


def move_names(tokens: npt.NDArray[np.uint8]) -> str:
    """Tokens as names of squares, 'f5 d6 c3'."""
    return " ".join(TILES[board.SQUARE_OF_TOKEN[t]] if 0 < t <= 60 else "?" for t in tokens)


def move_probabilities(
    subject: Subject, tokens: npt.NDArray[np.uint8], *edits: Edit
) -> npt.NDArray[np.float64]:
    """The model's probability of a next move on each square [64], with `edits` in place.

    Raises:
        UserError: no move to read, or more than fit into the model's context.
    """
    import torch

    if not 1 <= len(tokens) <= board.N_PLIES - 1:
        raise UserError(f"the model reads 1 to {board.N_PLIES - 1} moves, not {len(tokens)}")
    with subject.edited(*edits):
        logits = subject.logits(torch.from_numpy(tokens.astype(np.int64))[None])[0, -1]
    probabilities = np.zeros(64)
    probabilities[board.SQUARE_OF_TOKEN[1:]] = logits.double().softmax(-1)[1:].numpy()
    return probabilities


def board_text(position: Position) -> str:
    """The board as text: X black, O white, * legal."""
    marks = np.where(position.legal, "*", np.array(list(".XO"))[position.absolute]).reshape(8, 8)
    rows = [f"{r + 1} {' '.join(marks[r])}" for r in range(8)]
    return "\n".join(["  a b c d e f g h", *rows])
