"""The settings of a training run, apart so that the command line need not import torch."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from interp.errors import UserError


@dataclass(frozen=True)
class TrainConfig:
    """One training run; everything but the folders and the cadence decides its result."""

    out: Path
    """Folder that receives the model, card.json and README.md."""
    ckpt: Path = Path("runs/othello-checkpoints")
    """Folder of the checkpoints (weights and optimiser state); one run a folder."""
    games: int = 2_200_000
    """Training games planned; the learning rate falls to zero over them."""
    n_layers: int = 4
    """Transformer blocks."""
    d_model: int = 128
    """Width of the residual stream; the MLP is four times as wide."""
    n_heads: int = 4
    """Attention heads a block."""
    batch: int = 128
    """Games a step."""
    lr: float = 1.5e-3
    """Peak learning rate of AdamW (betas .9, .95)."""
    warmup_games: int = 40_000
    """Games over which the learning rate rises linearly."""
    weight_decay: float = 0.01
    """Decoupled decay of the matrices; biases and LayerNorms have none."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Arithmetic of the matrix products; weights and optimiser are always fp32."""
    attention: Literal["eager", "sdpa"] = "eager"
    """Attention code of transformers used in training; both give the same model."""
    shards: int = 2
    """Equal parts of a batch, each worked on by a thread of its own."""
    seed: int = 0
    """Seed of the initial weights and of the games."""
    eval_games: int = 5_000
    """Held-out games scored at the end."""
    log_every: int = 100
    """Steps between two reports."""
    ckpt_seconds: float = 300.0
    """Seconds between two checkpoints."""

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.games // self.batch

    def check(self) -> None:
        """Raise UserError for settings that cannot work."""
        counts = ("games", "n_layers", "d_model", "n_heads", "batch", "shards", "eval_games")
        for name in (*counts, "log_every"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1")
        if self.games < self.batch:
            raise UserError(f"{self.games} games are less than one batch of {self.batch}")
        if self.batch < self.shards:
            raise UserError(f"a batch of {self.batch} has no {self.shards} --shards")
        if self.d_model % self.n_heads:
            raise UserError(f"{self.n_heads} heads do not divide --d-model {self.d_model}")
        if (
            min(self.seed, self.warmup_games, self.weight_decay) < 0
            or not min(self.lr, self.clip) > 0
        ):
            raise UserError(
                "--seed, --warmup-games and --weight-decay are from 0 up, --lr and --clip above it"
            )

    def identity(self) -> dict[str, Any]:
        """The fields a checkpoint must agree on to be continued."""
        loose = {"out", "ckpt", "eval_games", "log_every", "ckpt_seconds"}
        return {name: value for name, value in asdict(self).items() if name not in loose}
