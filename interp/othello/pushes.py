"""The mechanics of editing a board in the model's mind: cases, pushes, and counting errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ..directions import Directions
from ..errors import UserError
from ..model.edits import Edit
from ..model.site import Site
from ..model.subject import Subject
from . import board
from .games import relative_boards, replay, squares
from .sae import directions_name

FIRST_PLY, LAST_PLY = 8, 52
"""The last move read lies between these."""


class Case(NamedTuple):
    """A position and the disc that changes sides in it."""

    game: int
    ply: int
    """Number of the last move read."""
    tile: int
    present: int
    """1 own, 2 enemy."""
    legal: int
    """Mask of the legal squares."""
    legal_edited: int
    """The same after the disc has changed sides."""


def find_cases(games: npt.NDArray[np.uint8], n: int, seed: int) -> list[Case]:
    """At most n cases, one a game [.., 60]: a random ply and a random disc of it, kept if its
    change changes the legal moves and leaves some."""
    rng = np.random.default_rng(seed)
    played = replay(games)
    boards = relative_boards(played)
    found: list[Case] = []
    for game in range(len(games)):
        ply = int(rng.integers(FIRST_PLY, LAST_PLY + 1))
        states = boards[game, ply]
        if states[0] >= 0:
            tile = int(rng.choice(np.flatnonzero(states > 0)))
            legal, edited = int(played.legal[game, ply + 1]), edited_legal(states, tile)
            if edited not in (0, legal):
                found.append(Case(game, ply, tile, int(states[tile]), legal, edited))
        if len(found) == n:
            break
    return found


def edited_legal(states: npt.NDArray[np.int8], tile: int) -> int:
    """Legal squares of a relative board [64] after the disc on a tile has changed sides."""
    own, enemy = (int(sum(1 << int(s) for s in np.flatnonzero(states == k))) for k in (1, 2))
    bit = 1 << tile
    return int(board.legal_moves(np.uint64(own ^ bit), np.uint64(enemy ^ bit)))


def push_vector(found: Directions, tile: int, present: int) -> Float[Tensor, " d"]:
    """The unit vector from a disc's present state (1 own, 2 enemy) to the other one."""
    index = found.index
    rows = []
    for kind in ("enemy", "own") if present == 1 else ("own", "enemy"):
        at = np.flatnonzero((index["kind"] == kind) & (index["tile"] == tile))
        if not len(at):
            raise UserError(f"the comparison has no direction for {kind} tile {tile}: more games")
        rows.append(found.vectors[int(at[0])].float())
    if "latent" in index:  # of a dictionary only the directions mean something
        rows = [normalize(row, dim=0) for row in rows]
    return normalize(rows[0] - rows[1], dim=0)


def push_vectors(
    run: Path, reader: str, seed: int, layer: int, cases: Sequence[Case], width: int
) -> Float[Tensor, "cases d"]:
    """A push for every case: of a reader of the comparison in `run`, or "random"."""
    if reader == "random":
        generator = torch.Generator().manual_seed(1000 * seed + layer)
        return normalize(torch.randn(len(cases), width, generator=generator), dim=1)
    found = Directions.load(run / "directions" / directions_name(reader, seed, layer))
    return torch.stack([push_vector(found, case.tile, case.present) for case in cases])


def push(layer: int, vectors: Float[Tensor, "batch d"], scale: float) -> Edit:
    """Add scale * vector to the last position's stream after a layer, another in every row."""
    moved = scale * vectors[:, None]
    return Edit(Site("resid_post", layer), lambda h: h + moved.to(h), "last")


class Errors(NamedTuple):
    """False positives + false negatives of the N best moves, case by case."""

    edited: npt.NDArray[np.int64]
    """Against the N legal moves of the edited board."""
    own: npt.NDArray[np.int64]
    """Against those of the board as it is."""


def count_errors(
    subject: Subject,
    games: npt.NDArray[np.uint8],
    cases: Sequence[Case],
    vectors: Mapping[int, Float[Tensor, "cases d"]],
    scale: float,
) -> Errors:
    """Run every case with the pushes `vectors` (layer -> one a case) and count."""
    edited, own = np.zeros(len(cases), np.int64), np.zeros(len(cases), np.int64)
    plies = np.array([case.ply for case in cases])
    for ply in sorted(set(plies.tolist())):
        at = np.flatnonzero(plies == ply).tolist()
        rows = games[np.array([cases[i].game for i in at]), : ply + 1]
        edits = [push(layer, v[at], scale) for layer, v in vectors.items()]
        with subject.edited(*edits):
            logits = subject.logits(torch.from_numpy(rows.astype(np.int64)))[:, -1]
        order = logits.argsort(dim=1, descending=True, stable=True).numpy()
        for i, ranked in zip(at, order, strict=True):
            edited[i] = top_errors(ranked, cases[i].legal_edited)
            own[i] = top_errors(ranked, cases[i].legal)
    return Errors(edited, own)


def top_errors(ranked: npt.NDArray[np.int64], legal: int) -> int:
    """Errors of the N best tokens against N legal squares: each miss is one of either kind."""
    tokens = set(legal_tokens(legal).tolist())
    return 2 * len(tokens - set(ranked[: len(tokens)].tolist()))


def legal_tokens(legal: int) -> npt.NDArray[np.int64]:
    """Tokens of the squares in a mask."""
    marks = squares(np.array(legal, np.uint64))
    found: npt.NDArray[np.int64] = board.TOKEN_OF_SQUARE[np.flatnonzero(marks)].astype(np.int64)
    return found
