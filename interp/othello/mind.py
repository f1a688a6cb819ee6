"""A board as read out of one position of the model, and edits of it: for the page and notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from ..directions import Directions
from ..model.edits import Edit
from ..model.site import Site
from ..model.subject import Subject
from ..runs.store import Run
from ..saes.sae import Sae, load_sae
from . import board
from .compare import CompareConfig
from .match import rule_board
from .pushes import push, push_vector
from .sae import directions_name, sae_name

Board = npt.NDArray[np.int8]
"""[64]: 0 empty, 1 own, 2 enemy; 3 where latents claim both."""


def residual(
    subject: Subject, tokens: npt.NDArray[np.uint8], layer: int, edits: Sequence[Edit] = ()
) -> torch.Tensor:
    """The stream [d] after a layer at the last of some moves, edits applied."""
    site = Site("resid_post", layer)
    with subject.edited(*edits):
        found = subject.capture(torch.from_numpy(tokens.astype(np.int64))[None], [site])[site]
    last: torch.Tensor = found[0, -1]
    return last


def probe_board(run: Run, layer: int, x: torch.Tensor) -> Board:
    """What the comparison's probe sees in a residual [d]."""
    found = Directions.load(run.path / "directions" / directions_name("probe", 0, layer))
    logits = found.scores(x) + torch.tensor(found.index["intercept"].to_numpy(), dtype=x.dtype)
    seen: Board = logits.view(3, 64).argmax(0).numpy().astype(np.int8)
    return seen


def open_sae(run: Run, arch: str, layer: int, seed: int) -> Sae:
    """One of the autoencoders that a comparison compared."""
    made = CompareConfig(**run.config).sae_run()
    return load_sae(made.path / "saes" / sae_name(arch, layer, seed))


def latent_rules(run: Run, arch: str, layer: int, seed: int) -> pd.DataFrame:
    """The rules of an autoencoder: latent, kind, tile, threshold."""
    rules = pd.read_parquet(run.path / "rules" / f"L{layer}.parquet")
    mine = rules[(rules["reader"] == arch) & (rules["seed"] == seed)]
    return mine[["latent", "kind", "tile", "threshold"]].astype(
        {"latent": int, "tile": int, "threshold": float}
    )


def latent_board(sae: Sae, rules: pd.DataFrame, x: torch.Tensor) -> Board:
    """What an autoencoder's high-precision latents claim of a residual [d]."""
    levels = np.full((sae.d_sae, 128), np.inf, np.float32)
    column = rules["tile"] + 64 * (rules["kind"] == "enemy")
    levels[rules["latent"], column] = rules["threshold"]
    found: Board = rule_board(sae.encode(x[None]).numpy(), levels)[0]
    return found


def turn_disc(
    run: Run, reader: str, seed: int, layers: Sequence[int], tile: int, present: int, scale: float
) -> list[Edit]:
    """Edits that turn the disc on a tile (1 own, 2 enemy at present) in the model's mind."""
    edits = []
    for layer in layers:
        name = directions_name(reader, seed, layer)
        found = Directions.load(run.path / "directions" / name)
        edits.append(push(layer, push_vector(found, tile, present)[None], scale))
    return edits


def in_colours(seen: Board, mover: int) -> Board:
    """A relative board with black as 1 and white as 2."""
    swapped = np.array([0, 2, 1, 3], np.int8)
    return swapped[seen] if mover == board.WHITE else seen


def latent_map(run: Run, arch: str, layer: int, seed: int, what: str) -> npt.NDArray[np.float32]:
    """Every latent against every fact [d_sae, 320]: what is "auroc" or "f1"."""
    from safetensors import safe_open

    path: Path = run.path / "maps" / f"L{layer}.safetensors"
    with safe_open(path, "np") as file:
        values: npt.NDArray[np.float32] = file.get_tensor(f"{what}.{arch}-S{seed}")
    return values.astype(np.float32)
