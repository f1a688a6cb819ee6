"""Interventions on the board that the model represents: cases, added vectors, counted errors."""

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
from .games import relative_boards, replay, tokens_of
from .sae import directions_name

FIRST_PLY, LAST_PLY = 8, 52
"""The last move read has a number from the first to the last of these."""


class Case(NamedTuple):
    """A position, and the disc of it that is flipped."""

    game: int
    ply: int
    """Number of the last move read."""
    tile: int
    present: int
    """State of the disc before: 1 own, 2 enemy."""
    legal: int
    """Mask of the legal squares."""
    legal_edited: int
    """The same after the disc is flipped."""


def find_cases(games: npt.NDArray[np.uint8], n: int, seed: int) -> list[Case]:
    """At most n cases, one per game [.., 60]: a random ply and a random disc of its board.

    A disc is kept if flipping it changes the legal moves and leaves at least one.
    """
    rng = np.random.default_rng(seed)
    played = replay(games)
    boards = relative_boards(played)
    cases: list[Case] = []
    for game in range(len(games)):
        ply = int(rng.integers(FIRST_PLY, LAST_PLY + 1))
        states = boards[game, ply]
        if states[0] >= 0:
            tile = int(rng.choice(np.flatnonzero(states > 0)))
            legal, edited = int(played.legal[game, ply + 1]), legal_after_flip(states, tile)
            if edited not in (0, legal):
                cases.append(Case(game, ply, tile, int(states[tile]), legal, edited))
        if len(cases) == n:
            break
    return cases


def legal_after_flip(states: npt.NDArray[np.int8], tile: int) -> int:
    """Mask of the legal squares of a relative board [64] after the disc on a tile is flipped."""
    own, enemy = (int(sum(1 << int(s) for s in np.flatnonzero(states == k))) for k in (1, 2))
    bit = 1 << tile
    return int(board.legal_moves(np.uint64(own ^ bit), np.uint64(enemy ^ bit)))


def flip_vector(directions: Directions, tile: int, present: int) -> Float[Tensor, " d"]:
    """The unit vector from a disc's present state (1 own, 2 enemy) to the other state.

    Raises:
        UserError: the directions lack one of the two states of the tile.
    """
    index = directions.index
    rows = []
    for kind in ("enemy", "own") if present == 1 else ("own", "enemy"):
        at = np.flatnonzero((index["kind"] == kind) & (index["tile"] == tile))
        if not len(at):
            raise UserError(
                f"the comparison has no direction for {kind} on tile {tile}: compare with more "
                "games"
            )
        rows.append(directions.vectors[int(at[0])].float())
    if "latent" in index:  # the length of a decoder row has no meaning
        rows = [normalize(row, dim=0) for row in rows]
    return normalize(rows[0] - rows[1], dim=0)


def flip_vectors(
    run: Path, reader: str, seed: int, layer: int, cases: Sequence[Case], width: int
) -> Float[Tensor, "cases d"]:
    """A unit vector for every case: of a reader of the comparison in `run`, or "random"."""
    if reader == "random":
        generator = torch.Generator().manual_seed(1000 * seed + layer)
        return normalize(torch.randn(len(cases), width, generator=generator), dim=1)
    directions = Directions.load(run / "directions" / directions_name(reader, seed, layer))
    return torch.stack([flip_vector(directions, case.tile, case.present) for case in cases])


def add_at_last(layer: int, vectors: Float[Tensor, "batch d"], scale: float) -> Edit:
    """Add scale * vector to the residual stream after a layer, at the last position of each row."""
    added = scale * vectors[:, None]
    return Edit(Site("resid_post", layer), lambda h: h + added.to(h), "last")


class Errors(NamedTuple):
    """False positives + false negatives of the N most probable moves, case by case."""

    edited: npt.NDArray[np.int64]
    """Against the N legal moves of the edited board."""
    own: npt.NDArray[np.int64]
    """Against the legal moves of the board as it is."""


def count_errors(
    subject: Subject,
    games: npt.NDArray[np.uint8],
    cases: Sequence[Case],
    vectors: Mapping[int, Float[Tensor, "cases d"]],
    scale: float,
) -> Errors:
    """The errors of every case with `vectors` added: a vector per case for each layer."""
    edited, own = np.zeros(len(cases), np.int64), np.zeros(len(cases), np.int64)
    plies = np.array([case.ply for case in cases])
    for ply in sorted(set(plies.tolist())):
        at = np.flatnonzero(plies == ply).tolist()
        rows = games[np.array([cases[i].game for i in at]), : ply + 1]
        edits = [add_at_last(layer, v[at], scale) for layer, v in vectors.items()]
        with subject.edited(*edits):
            logits = subject.logits(torch.from_numpy(rows.astype(np.int64)))[:, -1]
        order = logits.argsort(dim=1, descending=True, stable=True).cpu().numpy()
        edited[at] = top_errors(order, [cases[i].legal_edited for i in at])
        own[at] = top_errors(order, [cases[i].legal for i in at])
    return Errors(edited, own)


def top_errors(order: npt.NDArray[np.int64], legal: Sequence[int]) -> npt.NDArray[np.int64]:
    """Errors of the N first tokens of each row of `order` [b, 61] against the N squares of a mask.

    Each legal move that is missed is a false negative, and the move in its place a false positive.
    """
    tokens = tokens_of(legal)
    n = tokens.sum(1)
    hits = np.take_along_axis(tokens, order, 1).cumsum(1)[np.arange(len(n)), n - 1]
    errors: npt.NDArray[np.int64] = 2 * (n - hits)
    return errors
