"""What is true of the board at every position a model reads, lined up with its activations.

Alignment: position t of the model has read moves 0 .. t; it is labelled with the board after move
t, as the player of move t + 1 sees it. Positions after which nobody moves are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..model.site import Site
from . import board
from .games import relative_boards, replay, squares
from .stability import stable_discs

if TYPE_CHECKING:
    from torch import Tensor

    from ..model.subject import Subject

STATES = ("empty", "own", "enemy")
"""Values 0, 1, 2 of a relative board."""
COLOURS = ("empty", "black", "white")
"""Values 0, 1, 2 of an absolute board."""
TILES = tuple("abcdefgh"[s % 8] + str(s // 8 + 1) for s in range(64))
"""Names of the squares: column letter, row number."""
BATCH = 128
"""Games in a forward pass."""


class Facts(NamedTuple):
    """Labels of N positions of a set of games."""

    kept: npt.NDArray[np.bool_]
    """[games, 59]: the positions labelled, in the order of the rows below."""
    game: npt.NDArray[np.int64]
    """[N]: number of the game."""
    ply: npt.NDArray[np.int64]
    """[N]: number of the last move read, from 0."""
    relative: npt.NDArray[np.int8]
    """[N, 64]: see STATES."""
    absolute: npt.NDArray[np.int8]
    """[N, 64]: see COLOURS."""
    paper: npt.NDArray[np.bool_]
    """[N, 64]: stable discs by the paper's code (see stability.py)."""
    sound: npt.NDArray[np.bool_]
    """[N, 64]: soundly stable discs."""


def facts(games: npt.NDArray[np.uint8]) -> Facts:
    """The facts of games [n, 60]."""
    played = replay(games)
    kept = played.mover[:, 1:] != board.NOBODY
    game, ply = np.nonzero(kept)
    black, white = played.black[:, :-1][kept], played.white[:, :-1][kept]
    paper, sound = stable_discs(black, white)
    absolute = (squares(black) + 2 * squares(white)).astype(np.int8)
    relative = relative_boards(played)[kept]
    return Facts(kept, game, ply, relative, absolute, squares(paper), squares(sound))


def labels(known: Facts) -> tuple[npt.NDArray[np.bool_], pd.DataFrame]:
    """Every yes-or-no fact as a column, [N, 320], and what the columns are.

    The index has `kind` (empty, own, enemy, paper, sound), `tile` (0 .. 63) and `name`.
    """
    columns = [known.relative == value for value in range(3)] + [known.paper, known.sound]
    kinds = [*STATES, "paper", "sound"]
    index = pd.DataFrame(
        [
            {"kind": kind, "tile": tile, "name": f"{kind} {TILES[tile]}"}
            for kind in kinds
            for tile in range(64)
        ]
    )
    return np.concatenate(columns, axis=1), index


def read(
    subject: Subject, games: npt.NDArray[np.uint8], sites: list[Site], kept: npt.NDArray[np.bool_]
) -> dict[Site, Tensor]:
    """Activations [N, d] at the kept positions of games [n, 60], on the CPU in float32."""
    import torch

    parts: dict[Site, list[Tensor]] = {site: [] for site in sites}
    tokens = torch.from_numpy(games[:, :-1].astype(np.int64))
    both = (torch.split(part, BATCH) for part in (tokens, torch.from_numpy(kept)))
    for batch, chosen in zip(*both, strict=True):
        found = subject.capture(batch, sites)
        for site in sites:
            parts[site].append(found[site].cpu().float()[chosen])
    return {site: torch.cat(parts.pop(site)) for site in sites}
