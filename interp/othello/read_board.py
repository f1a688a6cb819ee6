"""The board that one position of the model represents, and edits of it: for pages and notebooks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from ..directions import Directions
from ..model.edits import Edit
from ..model.site import Site
from ..model.subject import Subject
from ..runs.fit import rebuilt
from ..runs.store import Run
from ..saes import Sae, open_sae
from . import board
from .compare import CompareConfig
from .interventions import add_at_last, flip_vector
from .match import rule_board
from .sae import directions_name, sae_name

Board = npt.NDArray[np.int8]
"""[64]: 0 empty, 1 own, 2 enemy; 3 where latents claim both."""


def residual(
    subject: Subject, tokens: npt.NDArray[np.uint8], layer: int, edits: Sequence[Edit] = ()
) -> torch.Tensor:
    """The residual stream [d] after a layer at the last of some moves, with `edits` in place."""
    site = Site("resid_post", layer)
    with subject.edited(*edits):
        stream = subject.capture(torch.from_numpy(tokens.astype(np.int64))[None], [site])[site]
    last: torch.Tensor = stream[0, -1]
    return last


def probe_board(run: Run, layer: int, x: torch.Tensor) -> Board:
    """The board that the comparison's probe reads from a residual [d]."""
    probe = Directions.load(run.path / "directions" / directions_name("probe", 0, layer))
    seen: Board = probe.scores(x).view(3, 64).argmax(0).numpy().astype(np.int8)
    return seen


def compared_sae(run: Run, arch: str, layer: int, seed: int) -> Sae:
    """One of the SAEs of a comparison."""
    made = rebuilt(CompareConfig, run.config).sae_run()
    return open_sae(made.path / "saes" / sae_name(arch, layer, seed))


def latent_rules(run: Run, arch: str, layer: int, seed: int) -> pd.DataFrame:
    """The rules of an SAE: latent, kind, tile, threshold."""
    rules = run.table(f"rules/L{layer}")
    own = rules[(rules["reader"] == arch) & (rules["seed"] == seed)]
    # earlier versions stored them as floats
    return own[["latent", "kind", "tile", "threshold"]].astype(
        {"latent": int, "tile": int, "threshold": float}
    )


def latent_board(sae: Sae, rules: pd.DataFrame, x: torch.Tensor) -> Board:
    """The board that an SAE's rules claim for a residual [d]."""
    levels = np.full((sae.d_sae, 128), np.inf, np.float32)
    column = rules["tile"] + 64 * (rules["kind"] == "enemy")
    levels[rules["latent"], column] = rules["threshold"]
    claimed: Board = rule_board(sae.encode(x[None]).numpy(), levels)[0]
    return claimed


def flip_disc(
    run: Run, reader: str, seed: int, layers: Sequence[int], tile: int, present: int, scale: float
) -> list[Edit]:
    """Edits that flip a disc (1 own, 2 enemy at present) in the board the model represents.

    At each layer they add scale * the unit vector from the disc's present state to the other state.
    """
    edits = []
    for layer in layers:
        name = directions_name(reader, seed, layer)
        directions = Directions.load(run.path / "directions" / name)
        edits.append(add_at_last(layer, flip_vector(directions, tile, present)[None], scale))
    return edits


def in_colours(seen: Board, mover: int) -> Board:
    """A relative board with black as 1 and white as 2."""
    swapped = np.array([0, 2, 1, 3], np.int8)
    return swapped[seen] if mover == board.WHITE else seen


def latent_map(run: Run, arch: str, layer: int, seed: int, what: str) -> npt.NDArray[np.float32]:
    """Every latent against every label [d_sae, 320]: `what` is "auroc" or "f1"."""
    from safetensors import safe_open

    path = run.part(f"maps/L{layer}.safetensors")
    with safe_open(path, "np") as file:
        values: npt.NDArray[np.float32] = file.get_tensor(f"{what}.{arch}-S{seed}")
    return values.astype(np.float32)
