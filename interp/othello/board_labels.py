"""The labels of every position a model reads: the board, and its stable discs.

Position t of the model has read moves 0 .. t. Its label is the board after move t, as the player
of move t + 1 sees it. Positions after which nobody moves have no label.
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
STABLE = ("paper", "sound")
"""The two definitions of a stable disc (stability.py)."""
TILES = tuple("abcdefgh"[s % 8] + str(s // 8 + 1) for s in range(64))
"""Names of the squares: column letter, row number."""
BATCH = 128
"""Games in a forward pass."""


class BoardLabels(NamedTuple):
    """Labels of N positions of some games."""

    kept: npt.NDArray[np.bool_]
    """[games, 59]: the labelled positions, in the order of the rows below."""
    game: npt.NDArray[np.int64]
    """[N]: number of the game."""
    ply: npt.NDArray[np.int64]
    """[N]: number of the last move read, from 0."""
    relative: npt.NDArray[np.int8]
    """[N, 64]: 0 empty, 1 own, 2 enemy."""
    absolute: npt.NDArray[np.int8]
    """[N, 64]: 0 empty, 1 black, 2 white."""
    paper: npt.NDArray[np.bool_]
    """[N, 64]: stable discs by the paper's code."""
    sound: npt.NDArray[np.bool_]
    """[N, 64]: discs that no continuation can flip."""


def label_boards(games: npt.NDArray[np.uint8]) -> BoardLabels:
    """The labels of games [n, 60]."""
    played = replay(games)
    kept = played.mover[:, 1:] != board.NOBODY
    game, ply = np.nonzero(kept)
    black, white = played.black[:, :-1][kept], played.white[:, :-1][kept]
    paper, sound = stable_discs(black, white)
    absolute = (squares(black) + 2 * squares(white)).astype(np.int8)
    relative = relative_boards(played)[kept]
    return BoardLabels(kept, game, ply, relative, absolute, squares(paper), squares(sound))


def tile_index(kinds: tuple[str, ...]) -> pd.DataFrame:
    """A row for each kind of label and tile (64 a kind): `name` ("own c4"), `kind`, `tile`."""
    rows = [(f"{kind} {TILES[tile]}", kind, tile) for kind in kinds for tile in range(64)]
    return pd.DataFrame(rows, columns=["name", "kind", "tile"])


def yes_no_labels(labels: BoardLabels) -> npt.NDArray[np.bool_]:
    """Every label as a yes-or-no column: [N, 320], in the order of tile_index(STATES + STABLE)."""
    states = [labels.relative == value for value in range(3)]
    return np.concatenate([*states, labels.paper, labels.sound], axis=1)


def read_activations(
    subject: Subject, games: npt.NDArray[np.uint8], sites: list[Site], kept: npt.NDArray[np.bool_]
) -> dict[Site, Tensor]:
    """Activations [N, d] at the kept positions of games [n, 60], on the CPU in float32."""
    import torch

    from ..text.stream import passes

    parts: dict[Site, list[Tensor]] = {site: [] for site in sites}
    for source, captured in passes(subject, games[:, :-1].tolist(), sites, BATCH):
        chosen = torch.from_numpy(kept[source.row.cpu(), source.position.cpu()])
        for site in sites:
            parts[site].append(captured[site].cpu().float()[chosen])
    return {site: torch.cat(parts.pop(site)) for site in sites}
