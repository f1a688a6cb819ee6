"""Checkpoints of a training run: weights and AdamW state in one safetensors file, and a JSON.

A checkpoint is a folder `step-<n>` with state.safetensors ("model.<name>" and
"<exp_avg | exp_avg_sq | step>.<name>" tensors) and state.json (a RunState and the identity
of the run). It is written under another name and renamed, so a folder of that name is whole.
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from interp.errors import UserError


@dataclass
class RunState:
    """Where a run stands; changes as it goes."""

    step: int = 0
    """Optimiser steps done."""
    seconds: float = 0.0
    """Wall time spent, over all sittings, pauses included."""
    curve: list[dict[str, float]] = field(default_factory=list)
    """Training loss: games, loss, above_floor, one entry a log line."""
    legality: list[dict[str, float]] = field(default_factory=list)
    """games, legality and kl on a few held-out games, one entry a checkpoint."""
    pending: list[tuple[float, float]] = field(default_factory=list)
    """(loss, floor) of the steps since the curve's last entry."""
    identity: dict[str, Any] = field(default_factory=dict)
    """The settings that decide the run's result."""


def save_checkpoint(
    folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer, state: RunState
) -> None:
    """Write `step-<n>`, then delete the older ones."""
    final = folder / f"step-{state.step:09d}"
    part = folder / f"writing-{os.getpid()}"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    tensors = {f"model.{name}": p.detach() for name, p in model.named_parameters()}
    for name, p in model.named_parameters():
        tensors |= {f"{key}.{name}": value for key, value in optimiser.state[p].items()}
    save_file(tensors, part / "state.safetensors")
    (part / "state.json").write_text(json.dumps(asdict(state)))
    for written in part.iterdir():
        with written.open("rb") as file:
            os.fsync(file.fileno())
    if final.exists():
        shutil.rmtree(final)
    part.rename(final)
    for other in folder.glob("step-*"):
        if other != final:
            shutil.rmtree(other)


def load_newest(
    folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer, identity: dict[str, Any]
) -> RunState:
    """Put the newest checkpoint into model and optimiser; a fresh state if there is none.

    Raises:
        UserError: the checkpoint is of a run with another identity.
    """
    found = sorted(folder.glob("step-*"))
    if not found:
        return RunState(identity=identity)
    state = RunState(**json.loads((found[-1] / "state.json").read_text()))
    if state.identity != identity:
        differing = sorted(k for k in identity if identity[k] != state.identity.get(k))
        raise UserError(
            f"{found[-1]} belongs to a run with other settings ({', '.join(differing)}): give "
            "another --ckpt"
        )
    tensors = load_file(found[-1] / "state.safetensors")
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(tensors[f"model.{name}"])
            optimiser.state[p] = {
                key: tensors[f"{key}.{name}"] for key in ("exp_avg", "exp_avg_sq", "step")
            }
    return state
