"""Sparse autoencoders on OthelloGPT's residual stream, trained with sae-lens, a set a seed.

Both architectures of `interp.saes.train` at every layer's `resid_post` (the paper ties the
encoder of its L1 ones to the decoder). The residuals of all layers come from one pass over fresh
random games, so that all autoencoders of a seed advance together, each token seen once.

Written to the run: `saes/<arch>-L<layer>-S<seed>/`, each a folder that `SAE.load_from_disk` opens
    (cfg.json; sae_weights.safetensors in float16), and
`saes.parquet`: name string, arch string, layer int64, seed int64, tokens int64, l0 double, fvu
    double, alive int64 (latents that ever fire): measured on held-out games from the stored weights
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from interp.data import FOLDER

from ..errors import UserError
from ..model.site import Site
from ..runs.store import RunWriter
from ..saes.train import SaePlan, Schedule, train_saes, trained

if TYPE_CHECKING:
    from torch import Tensor

    from ..model.subject import Subject
    from ..model.weights import Weights

SAES = FOLDER / "othello" / "saes"
"""The autoencoders that ship: a run of this study."""
STREAM, HELD_OUT = 7_000_000, 7_999_999
"""Seeds of the games trained on (plus the set's own seed) and measured on."""
CHUNK_GAMES = 512
"""Games whose tokens are shuffled together."""
ARCHITECTURES = ("topk", "l1")


@dataclass(frozen=True)
class SaeConfig:
    """Train sparse autoencoders on every layer's residual stream."""

    STUDY: ClassVar[str] = "othello.sae"
    VERSION: ClassVar[int] = 1

    model: str = "othello-gpt"
    """An OthelloGPT: the shipped one, or a folder."""
    tokens: int = 2_000_000
    """Residuals each autoencoder sees, every one once."""
    d_sae: int = 1024
    """Latents."""
    k: int = 32
    """Active latents a token of the TopK ones."""
    l1: float = 2.0
    """Sparsity coefficient of the L1 ones."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One set of autoencoders each: other initial weights, other games."""
    lr: float = 2e-3
    """Adam's learning rate; it falls to a tenth over the last third."""
    batch: int = 1024
    """Tokens a step."""
    device: str = field(default="cpu", metadata={"key": False})
    """Where to compute."""

    def fingerprints(self) -> dict[str, str]:
        return {"model": open_othello(self.model).fingerprint()}

    def check(self) -> None:
        if not 1 <= self.batch <= self.tokens or not 1 <= self.k < self.d_sae:
            raise UserError("give at least one step, and 1 <= k < d-sae")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise UserError("--seeds are one or more numbers from 0 up, each once")
        if not (0 < self.lr < math.inf and 0 <= self.l1 < math.inf):
            raise UserError("--lr must be above 0, --l1 not below it")

    def run(self, out: RunWriter) -> dict[str, Any]:
        import pandas as pd

        from ..model.subject import open_subject

        subject = open_subject(self.model, device=self.device)
        for seed in self.seeds:
            names = [sae_name(a, layer, seed) for layer in _layers(subject) for a in ARCHITECTURES]
            if not all(trained(out, name) for name in names):
                _train_set(self, subject, seed, out)
        table = pd.DataFrame(_measured(self, subject, out.path))
        with out.part("saes.parquet") as path:
            table.to_parquet(path)
        out.facts = {"parity": subject.parity, "device": self.device}
        means = table.groupby("arch")[["l0", "fvu", "alive"]].mean()
        return {
            f"{name}_{arch}": round(float(value), 4)
            for arch, row in means.iterrows()
            for name, value in row.items()
        }


def open_othello(model: str) -> Weights:
    """The weights of an OthelloGPT.

    Raises:
        UserError: a model with another vocabulary.
    """
    from ..model.weights import open_weights

    weights = open_weights(model)
    if weights.spec.d_vocab != 61:
        raise UserError(
            f"{model} is no OthelloGPT: its vocabulary is {weights.spec.d_vocab}, not 61"
        )
    return weights


def sae_name(arch: str, layer: int, seed: int) -> str:
    return f"{arch}-L{layer}-S{seed}"


def directions_name(reader: str, seed: int, layer: int) -> str:
    """Folder of a reader's directions in a comparison's `directions/`."""
    return f"{reader}-L{layer}" if reader in ("probe", "means") else sae_name(reader, layer, seed)


def _layers(subject: Subject) -> range:
    return range(subject.spec.n_layers)


def _sites(subject: Subject) -> list[Site]:
    return [Site("resid_post", layer) for layer in _layers(subject)]


def _train_set(config: SaeConfig, subject: Subject, seed: int, out: RunWriter) -> None:
    """All architectures and layers of one seed, in step over one stream of games."""
    plans = []
    for layer, site in enumerate(_sites(subject)):
        topk, l1 = (sae_name(arch, layer, seed) for arch in ARCHITECTURES)
        plans.append(SaePlan(topk, site, "topk", config.d_sae, config.k, seed))
        plans.append(SaePlan(l1, site, "l1", config.d_sae, config.l1, seed))
    steps = config.tokens // config.batch
    name = Path(config.model).name
    schedule = Schedule(steps, config.batch, config.lr, name, config.device)
    train_saes(
        plans,
        lambda first: itertools.islice(_batches(config, subject, seed), first, None),
        schedule,
        out,
        f"train SAEs, seed {seed}",
    )


def _batches(config: SaeConfig, subject: Subject, seed: int) -> Iterator[dict[Site, Tensor]]:
    """Residuals [batch, d] of every layer, the same tokens in each, shuffled over CHUNK_GAMES."""
    import torch

    from .facts import read
    from .games import random_games

    sites, first = _sites(subject), 0
    generator = torch.Generator().manual_seed(seed)
    while True:
        games = random_games(CHUNK_GAMES, STREAM + seed, first=first, split="train")
        found = read(subject, games, sites, games[:, :-1] != 0)
        order = torch.randperm(len(found[sites[0]]), generator=generator)
        whole = order[: len(order) // config.batch * config.batch]
        for chosen in torch.split(whole, config.batch):
            yield {site: found[site][chosen].to(config.device) for site in sites}
        first += CHUNK_GAMES


def _measured(config: SaeConfig, subject: Subject, folder: Path) -> Iterator[dict[str, Any]]:
    """L0, FVU and living latents of each stored autoencoder on 1,000 held-out games."""
    import torch

    from interp.probes.metrics import fvu

    from ..saes.sae import load_sae
    from .facts import read
    from .games import random_games

    games = random_games(1000, HELD_OUT, split="held_out")
    found = read(subject, games, _sites(subject), games[:, :-1] != 0)
    for layer, x in enumerate(found.values()):
        for arch in ARCHITECTURES:
            for seed in config.seeds:
                sae = load_sae(folder / "saes" / sae_name(arch, layer, seed))
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
