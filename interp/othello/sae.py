"""Sparse autoencoders on OthelloGPT's residual stream, trained with sae-lens, a set a seed.

Two architectures at every layer's `resid_post`: TopK, and the ReLU one with an L1 penalty (weighted
by decoder norms, encoder and decoder untied; the paper ties them). The residuals of all layers come
from one pass over fresh random games, so that all autoencoders of a seed advance together, each
token seen once. Inputs are scaled to a mean norm of sqrt(d) in training, the scale is folded into
the weights afterwards, and the decoder's bias starts at the mean: without that most latents die.

Naive equivalent for one layer: sae_lens.SAETrainer(...).fit() over the same stream.

Written to the run: `saes/<arch>-L<layer>-S<seed>/`, each a folder that `SAE.load_from_disk` opens
    (cfg.json; sae_weights.safetensors in float16), and
`saes.parquet`: name string, arch string, layer int64, seed int64, tokens int64, l0 double, fvu
    double, alive int64 (latents that ever fire): measured on held-out games from the stored weights
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from interp.data import FOLDER

from ..errors import UserError
from ..progress import progress
from ..site import Site
from ..store import RunWriter

if TYPE_CHECKING:
    from torch import Tensor

    from ..subject import Subject
    from ..weights import Weights

SAES = FOLDER / "othello" / "saes"
"""The autoencoders that ship: a run of this study."""
STREAM, HELD_OUT = 7_000_000, 7_999_999
"""Seeds of the games trained on (plus the set's own seed) and measured on."""
CHUNK_GAMES = 512
"""Games whose tokens are shuffled together."""
ARCHITECTURES = ("topk", "l1")
REPORT = 50
"""Steps between two reports of progress."""


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
        if min(self.tokens // self.batch, self.d_sae - self.k, self.k, len(self.seeds)) < 1:
            raise UserError("give at least one step, one seed, and 1 <= k < d-sae")

    def run(self, out: RunWriter) -> dict[str, Any]:
        import pandas as pd

        from ..subject import open_subject

        subject = open_subject(self.model, device=self.device)
        for seed in self.seeds:
            names = [sae_name(a, layer, seed) for layer in _layers(subject) for a in ARCHITECTURES]
            if not all(out.has(f"saes/{name}/cfg.json") for name in names):
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
    from ..weights import open_weights

    weights = open_weights(model)
    if weights.spec.d_vocab != 61:
        raise UserError(
            f"{model} is no OthelloGPT: its vocabulary is {weights.spec.d_vocab}, not 61"
        )
    return weights


def sae_name(arch: str, layer: int, seed: int) -> str:
    return f"{arch}-L{layer}-S{seed}"


def _layers(subject: Subject) -> range:
    return range(subject.spec.n_layers)


def _sites(subject: Subject) -> list[Site]:
    return [Site("resid_post", layer) for layer in _layers(subject)]


def _train_set(config: SaeConfig, subject: Subject, seed: int, out: RunWriter) -> None:
    """All architectures and layers of one seed, in step over one stream of games."""
    batches = _batches(config, subject, seed)
    first = next(batches)
    trainers: dict[tuple[str, int], Any] = {}
    scales: list[float] = []
    for layer, x in enumerate(first):
        scales.append(float(x.shape[1] ** 0.5 / x.norm(dim=1).mean()))
        for arch in ARCHITECTURES:
            trainers[arch, layer] = _trainer(config, arch, layer, seed, x * scales[layer])
    steps = config.tokens // config.batch
    with progress(f"train SAEs, seed {seed}", steps * config.batch, "tokens") as advance:
        for step, residuals in zip(range(1, steps + 1), batches, strict=False):
            for (_, layer), trainer in trainers.items():
                trainer.step(residuals[layer] * scales[layer])
                trainer.n_training_steps += 1
            if step % REPORT == 0 or step == steps:
                advance(config.batch * ((step - 1) % REPORT + 1))
    for (arch, layer), trainer in trainers.items():
        _save(trainer.sae, scales[layer], out, sae_name(arch, layer, seed))


def _batches(config: SaeConfig, subject: Subject, seed: int) -> Iterator[list[Tensor]]:
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
            yield [found[site][chosen].to(config.device) for site in sites]
        first += CHUNK_GAMES


def _trainer(config: SaeConfig, arch: str, layer: int, seed: int, x: Tensor) -> Any:
    """A sae-lens trainer to be stepped; `x` [batch, d] are scaled residuals to start from."""
    import torch
    from sae_lens import (
        SAETrainer,
        StandardTrainingSAE,
        StandardTrainingSAEConfig,
        TopKTrainingSAE,
        TopKTrainingSAEConfig,
    )
    from sae_lens.config import LoggingConfig, SAETrainerConfig

    from ..probes.sae import hook_of_site

    torch.manual_seed(1000 * seed + layer)
    steps = config.tokens // config.batch
    sizes = {"d_in": x.shape[1], "d_sae": config.d_sae, "device": config.device}
    sae: Any
    if arch == "topk":
        sae = TopKTrainingSAE(TopKTrainingSAEConfig(**sizes, k=config.k))
    else:
        warm_up = steps // 20
        sae = StandardTrainingSAE(
            StandardTrainingSAEConfig(**sizes, l1_coefficient=config.l1, l1_warm_up_steps=warm_up)
        )
    sae.b_dec.data.copy_(x.mean(0))
    sae.cfg.metadata.model_name = Path(config.model).name
    sae.cfg.metadata.hook_name = hook_of_site(f"{layer}.resid_post")
    schedule = SAETrainerConfig(
        total_training_samples=steps * config.batch,
        train_batch_size_samples=config.batch,
        lr=config.lr,
        lr_end=config.lr / 10,
        lr_warm_up_steps=steps // 20,
        lr_decay_steps=steps // 3,
        dead_feature_window=200,
        device=config.device,
        logger=LoggingConfig(log_to_wandb=False),
    )
    return SAETrainer(cfg=schedule, sae=sae, data_provider=iter([]))


def _save(sae: Any, scale: float, out: RunWriter, name: str) -> None:
    """Fold the scale in and store in float16, cfg.json last."""
    import tempfile

    import torch

    sae.fold_activation_norm_scaling_factor(scale)
    sae.to(torch.float16)
    with tempfile.TemporaryDirectory() as scratch:
        sae.save_inference_model(scratch)
        for part in ("sae_weights.safetensors", "cfg.json"):
            with out.part(f"saes/{name}/{part}") as path:
                path.write_bytes((Path(scratch) / part).read_bytes())


def _measured(config: SaeConfig, subject: Subject, folder: Path) -> Iterator[dict[str, Any]]:
    """L0, FVU and living latents of each stored autoencoder on 1,000 held-out games."""
    import torch

    from ..probes.metrics import fvu
    from ..probes.sae import load_sae
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
