"""The state of a training and its checkpoints: what a stopped training continues from.

A checkpoint is one file, `checkpoint.safetensors`: the tensors "model.<name>" and AdamW's
"<exp_avg | exp_avg_sq | step>.<name>", and the TrainingState as JSON in its metadata.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from ..errors import UserError
from ..runs.writer import RunWriter

CHECKPOINT = "checkpoint.safetensors"


@dataclass
class TrainingState:
    """How far a training has come; it changes with every step."""

    step: int = 0
    """Optimiser steps done."""
    seconds: float = 0.0
    """Wall time in seconds from start to stop, added up over resumptions; pauses count."""
    curve: list[dict[str, float]] = field(default_factory=list)
    """Training loss: games, loss, above_floor; one entry per log line."""
    legality: list[dict[str, float]] = field(default_factory=list)
    """games, legality and kl on 200 held-out games; one entry per checkpoint."""
    pending: list[tuple[float, float]] = field(default_factory=list)
    """(loss, floor) of the steps since the curve's last entry."""
    identity: dict[str, Any] = field(default_factory=dict)
    """The settings that decide the result."""


def save_checkpoint(
    folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer, state: TrainingState
) -> None:
    """Write the checkpoint, in the place of the one before."""
    tensors = {f"model.{name}": p.detach() for name, p in model.named_parameters()}
    for name, p in model.named_parameters():
        tensors |= {f"{key}.{name}": value for key, value in optimiser.state[p].items()}
    with RunWriter(folder, {}).part(CHECKPOINT) as making:
        save_file(tensors, making, {"state": json.dumps(asdict(state))})


def load_checkpoint(
    folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer, identity: dict[str, Any]
) -> TrainingState:
    """Put the checkpoint into model and optimiser; a fresh state if there is none.

    Raises:
        UserError: the checkpoint is of a training with other settings.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        return TrainingState(identity=identity)
    with safe_open(path, "pt") as file:
        state = TrainingState(**json.loads(file.metadata()["state"]))
        if state.identity != identity:
            differing = sorted(k for k in identity if identity[k] != state.identity.get(k))
            raise UserError(
                f"{path} belongs to a training with other settings ({', '.join(differing)}): give "
                "another --ckpt"
            )
        for name, p in model.named_parameters():
            p.data.copy_(file.get_tensor(f"model.{name}"))
            moments = ("exp_avg", "exp_avg_sq", "step")
            optimiser.state[p] = {key: file.get_tensor(f"{key}.{name}") for key in moments}
    return state
