"""The settings of a training. They have a file of their own, which imports no torch."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import UserError


@dataclass(frozen=True)
class TrainConfig:
    """The settings of one training. All but the folders and the reporting decide its result."""

    out: Path
    """Folder to write the model, card.json and README.md to."""
    ckpt: Path = Path("runs/othello-checkpoints")
    """Folder of the checkpoints (weights and optimiser state), of one training only."""
    games: int = 2_200_000
    """Training games; the learning rate falls to zero over them."""
    n_layers: int = 4
    """Transformer blocks."""
    d_model: int = 128
    """Width of the residual stream; the MLP is four times as wide."""
    n_heads: int = 4
    """Attention heads per block."""
    batch: int = 128
    """Games per step."""
    lr: float = 1.5e-3
    """Peak learning rate of AdamW (betas .9, .95)."""
    warmup_games: int = 40_000
    """Games over which the learning rate rises linearly."""
    weight_decay: float = 0.01
    """Decoupled weight decay of the matrices; biases and LayerNorms have none."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Number format of the matrix products; weights and optimiser are always fp32."""
    attention: Literal["eager", "sdpa"] = "eager"
    """The attention code of transformers that training uses; both give the same model."""
    shards: int = 2
    """Equal parts of a batch, each computed by a thread of its own."""
    seed: int = 0
    """Seed of the initial weights and of the games."""
    eval_games: int = 5_000
    """Held-out games scored at the end."""
    log_every: int = 100
    """Steps between two log lines."""
    ckpt_seconds: float = 300.0
    """Seconds between two checkpoints."""

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole training."""
        return self.games // self.batch

    def check(self) -> None:
        """Raise UserError for settings that cannot work."""
        counts = ("games", "n_layers", "d_model", "n_heads", "batch", "shards", "eval_games")
        for name in (*counts, "log_every"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1")
        if self.games < self.batch:
            raise UserError(f"--games {self.games} is less than one --batch of {self.batch}")
        if self.batch < self.shards:
            raise UserError(
                f"--shards {self.shards} is more than the {self.batch} games of a --batch"
            )
        if self.d_model % self.n_heads:
            raise UserError(
                f"--d-model {self.d_model} must be a multiple of --n-heads {self.n_heads}"
            )
        if (
            min(self.seed, self.warmup_games, self.weight_decay) < 0
            or not min(self.lr, self.clip) > 0
        ):
            raise UserError(
                "--seed, --warmup-games and --weight-decay must be at least 0, "
                "--lr and --clip above 0"
            )

    def identity(self) -> dict[str, Any]:
        """The settings that a training and its continuation must share."""
        loose = {"out", "ckpt", "eval_games", "log_every", "ckpt_seconds"}
        return {name: value for name, value in asdict(self).items() if name not in loose}
