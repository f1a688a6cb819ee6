"""The state of a training and its checkpoints: what a stopped training continues from.

A checkpoint is one file, `checkpoint.safetensors`: the tensors "model.<name>" and AdamW's
"<exp_avg | exp_avg_sq | step>.<name>", and the TrainingState as JSON in its metadata.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from ..errors import UserError
from ..plain_json import parsed, record
from ..plain_tensors import read_tensors
from ..runs.parts import whole

CHECKPOINT = "checkpoint.safetensors"
_FIX = "give another --ckpt"


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
    with whole(folder, CHECKPOINT) as making:
        save_file(tensors, making, {"state": json.dumps(asdict(state))})


def load_checkpoint(
    folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer, identity: dict[str, Any]
) -> TrainingState:
    """Put the checkpoint into model and optimiser; a fresh state if there is none.

    Raises:
        UserError: the checkpoint is damaged, or of a training with other settings.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        return TrainingState(identity=identity)
    tensors, about = read_tensors(path, _FIX)
    where = f"'state' of {path}"
    state = record(TrainingState, parsed(about.get("state", ""), where, _FIX), where, _FIX)
    if state.identity != identity:
        differing = sorted(k for k in identity if identity[k] != state.identity.get(k))
        raise UserError(
            f"{path} belongs to a training with other settings ({', '.join(differing)}): {_FIX}"
        )
    for name, p in model.named_parameters():
        shapes = {"model": p.shape, "exp_avg": p.shape, "exp_avg_sq": p.shape, "step": ()}
        for key, shape in shapes.items():
            if (stored := tensors.get(f"{key}.{name}")) is None or stored.shape != shape:
                raise UserError(f"{path} has no {key}.{name} of {list(shape)}: {_FIX}")
        p.data.copy_(tensors[f"model.{name}"])
        optimiser.state[p] = {key: tensors[f"{key}.{name}"] for key in shapes if key != "model"}
    return state
