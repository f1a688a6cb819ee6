"""The state of work under way: what a stopped run continues from, bit for bit.

One file of a run, `.<name>.pieces/state.safetensors`: tensors, and what else there is to say as
JSON in its metadata. Like the pieces of tables it is hidden, and is gone when the run is finished.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..plain_json import parsed
from ..plain_tensors import read_tensors
from .writer import STATE, RunWriter, passing_part, save_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

SECONDS = 60.0
"""At least so long between two checkpoints, and so many times..."""
SHARE = 20
"""... what the last one took to write."""


class State(NamedTuple):
    """What a checkpoint holds."""

    tensors: dict[str, Tensor]
    note: dict[str, Any]
    """What JSON can hold."""


class Checkpoint:
    """The checkpoint of one piece of work in a run."""

    def __init__(self, out: RunWriter, name: str) -> None:
        self._out, self._part = out, passing_part(name, STATE)
        self._next = time.monotonic() + SECONDS

    def read(self) -> State | None:
        """What was written last, by this process or one before it; on the CPU.

        Raises:
            UserError: the file is damaged.
        """
        if not self._out.has(self._part):
            return None
        path, fix = self._out.path / self._part, "delete it to start over"
        tensors, about = read_tensors(path, fix)
        return State(tensors, parsed(about.get("note", ""), f"'note' of {path}", fix))

    def due(self) -> bool:
        """Whether it is time to write again."""
        return time.monotonic() >= self._next

    def write(self, tensors: Mapping[str, Tensor], note: Mapping[str, Any] | None = None) -> None:
        """Put a new state in the place of the one before."""
        start = time.monotonic()
        with self._out.part(self._part) as path:
            save_tensors(tensors, path, {"note": json.dumps(dict(note or {}))})
        now = time.monotonic()
        self._next = now + max(SECONDS, SHARE * (now - start))

    def remove(self) -> None:
        """The work is done and its result written: the state is not needed any more."""
        self._out.drop(self._part)


def training_state(
    weights: Iterable[tuple[str, nn.Parameter]], optimiser: Optimizer
) -> dict[str, Tensor]:
    """Named weights, and what an Adam remembers of each (nothing before its first step)."""
    tensors: dict[str, Tensor] = {}
    for name, weight in weights:
        tensors[f"weights/{name}"] = weight.detach()
        tensors |= {f"{key}/{name}": value for key, value in optimiser.state[weight].items()}
    return tensors


def restore_training(
    tensors: Mapping[str, Tensor],
    weights: Iterable[tuple[str, nn.Parameter]],
    optimiser: Optimizer,
) -> None:
    """Set weights and optimiser to what `training_state` gave."""
    for name, weight in weights:
        weight.data.copy_(tensors[f"weights/{name}"])
        moments = ("exp_avg", "exp_avg_sq", "step")
        if f"step/{name}" in tensors:
            # Adam counts its steps on the CPU
            optimiser.state[weight] = {
                key: tensors[f"{key}/{name}"].to("cpu" if key == "step" else weight.device)
                for key in moments
            }
