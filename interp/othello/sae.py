"""Sparse autoencoders on OthelloGPT's residual stream, trained with sae-lens: one set per seed.

Kinds of `interp.saes.kinds` at every layer's `resid_post`. (The paper's L1 SAEs have an encoder
tied to the decoder; these do not.) All SAEs of a seed are trained together: one pass over fresh
random games gives the residuals of all layers, and each token is seen once.

Written to the run: `saes/<arch>-L<layer>-S<seed>/`, each a folder that `SAE.load_from_disk` opens
    (cfg.json; sae_weights.safetensors in float16, or float32 if that would lose something), and
`saes.parquet`: name string, arch string (the kind), layer int64, seed int64, tokens int64, l0, fvu
    double, alive int64 (latents that fire at least once): the stored weights on held-out games
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from interp.data import FOLDER

from ..errors import UserError
from ..model.aliases import public_name
from ..model.site import Site
from ..runs.store import Run
from ..runs.writer import RunWriter
from ..saes.kinds import TABLE, Kind, check_kinds
from ..saes.plan import SaePlan, Schedule
from ..saes.train import train_saes, trained
from .study import OthelloStudy

if TYPE_CHECKING:
    from ..model.subject import Subject
    from ..saes.train import Batches

SAES = FOLDER / "othello" / "saes"
"""The SAEs that ship with the workbench: a run of this study."""
STREAM, HELD_OUT = 7_000_000, 7_999_999
"""Streams of games: to train on (the SAEs' seed is added), and to measure on."""
FIXED: tuple[Kind, ...] = ("l1", "gated")
"""Kinds whose penalty has the coefficient `l1`, as in the paper; the others have `k`."""
CHUNK_GAMES = 512
"""Games whose tokens are shuffled together."""
KINDS: tuple[Kind, ...] = ("topk", "l1")
"""Those of the paper, and of the SAEs that ship."""


@dataclass(frozen=True)
class SaeConfig(OthelloStudy):
    """Train sparse autoencoders on every layer's residual stream."""

    STUDY: ClassVar[str] = "othello.sae"
    VERSION: ClassVar[int] = 2

    tokens: int = 2_000_000
    """Residuals that each autoencoder sees, each once."""
    d_sae: int = 1024
    """Latents."""
    k: int = 32
    """Active latents per token: exactly (topk), or on average."""
    l1: float = 2.0
    """Sparsity coefficient of the L1 and Gated SAEs."""
    kinds: tuple[Kind, ...] = KINDS
    """One SAE of each for every layer and seed."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One set of SAEs per seed, with its own initial weights and its own games."""
    lr: float = 2e-3
    """Adam's learning rate; it falls to a tenth over the last third."""
    batch: int = 1024
    """Tokens per step."""

    def check(self) -> None:
        super().check()
        if not 1 <= self.batch <= self.tokens:
            raise UserError("--batch must be between 1 and --tokens")
        check_kinds(self.kinds)
        if not 1 <= self.k < self.d_sae:
            raise UserError("--k must be at least 1 and less than --d-sae")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise UserError("--seeds must be different numbers of at least 0")
        if not (0 < self.lr < math.inf and 0 <= self.l1 < math.inf):
            raise UserError("--lr must be above 0 and --l1 at least 0, both finite")

    def run(self, out: RunWriter) -> dict[str, Any]:
        subject = self.open(out)
        for seed in self.seeds:
            layers = range(subject.spec.n_layers)
            names = [sae_name(arch, layer, seed) for layer in layers for arch in self.kinds]
            if not all(trained(out, name) for name in names):
                _train_set(self, subject, seed, out)
        table = out.table("saes", _measured(self, subject, out.path))
        means = table.groupby("arch")[["l0", "fvu", "alive"]].mean()
        return {
            f"{name}_{arch}": round(float(value), 4)
            for arch, row in means.iterrows()
            for name, value in row.items()
        }


def kinds_of(run: Run) -> tuple[str, ...]:
    """The kinds of a run of SAEs; the first runs do not say them."""
    return tuple(run.config.get("kinds", KINDS))


def sae_name(arch: str, layer: int, seed: int) -> str:
    return f"{arch}-L{layer}-S{seed}"


def directions_name(reader: str, seed: int, layer: int) -> str:
    """Name of a reader's directions in the folder `directions/` of a comparison."""
    return f"{reader}-L{layer}" if reader in ("probe", "means") else sae_name(reader, layer, seed)


def _sites(subject: Subject) -> list[Site]:
    return [Site("resid_post", layer) for layer in range(subject.spec.n_layers)]


def _train_set(config: SaeConfig, subject: Subject, seed: int, out: RunWriter) -> None:
    """Train all kinds and layers of one seed together, on one stream of games."""
    plans = [
        SaePlan(
            sae_name(kind, layer, seed),
            *(site, kind, config.d_sae, config.l1 if kind in FIXED else config.k, seed),
            steered=TABLE[kind].penalised and kind not in FIXED,
        )
        for layer, site in enumerate(_sites(subject))
        for kind in config.kinds
    ]
    steps, name = config.tokens // config.batch, public_name(config.model)
    schedule = Schedule(steps, config.batch, config.lr, name, device=config.own_device)

    def batches(first: int) -> Batches:
        return _batches(config, subject, seed, first)

    train_saes(plans, batches, schedule, out, f"train SAEs, seed {seed}")


def _batches(config: SaeConfig, subject: Subject, seed: int, first: int) -> Batches:
    """Residuals [batch, d] of every layer from batch `first` on, of the same tokens, shuffled over
    CHUNK_GAMES games. The model is not run on what comes before."""
    import torch

    from .board_labels import read_activations
    from .games import random_games

    sites = _sites(subject)
    generator = torch.Generator().manual_seed(seed)
    for start in itertools.count(0, CHUNK_GAMES):
        games = random_games(CHUNK_GAMES, STREAM + seed, first=start, split="train")
        played = games[:, :-1] != 0
        tokens = int(played.sum())
        order = torch.randperm(tokens, generator=generator)
        count = tokens // config.batch
        if first >= count:
            first -= count
            continue
        residuals = read_activations(subject, games, sites, played)
        for chosen in torch.split(order[: count * config.batch], config.batch)[first:]:
            yield {site: residuals[site][chosen].to(config.own_device) for site in sites}
        first = 0


def _measured(config: SaeConfig, subject: Subject, folder: Path) -> Iterator[dict[str, Any]]:
    """L0, FVU and latents that fire of each stored autoencoder, on 1,000 held-out games."""
    import torch

    from interp.probes.metrics import fvu

    from ..saes import open_sae
    from .board_labels import read_activations
    from .games import random_games

    games = random_games(1000, HELD_OUT, split="held_out")
    residuals = read_activations(subject, games, _sites(subject), games[:, :-1] != 0)
    for layer, x in enumerate(residuals.values()):
        for arch in config.kinds:
            for seed in config.seeds:
                sae = open_sae(folder / "saes" / sae_name(arch, layer, seed))
                z = sae.encode(x)
                yield {
                    "name": sae_name(arch, layer, seed),
                    "arch": arch,
                    "layer": layer,
                    "seed": seed,
                    "tokens": config.tokens // config.batch * config.batch,
                    "l0": float((z > 0).sum(1, dtype=torch.float64).mean()),
                    "fvu": fvu(x, sae.decode(z)),
                    "alive": int((z > 0).any(0).sum()),
                }
