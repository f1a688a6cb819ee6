"""Lenses beside the model's own distribution, at some positions of passages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..runs.intervals import mean_of
from .lens import Lens
from .states import Reader, States, kl_from

MEASURES = ("agreement", "following", "kl")


Values = np.ndarray[Any, np.dtype[np.float64]]


def covered(lenses: Mapping[str, Lens], layers: int) -> list[tuple[str, int]]:
    """Every lens with every layer that it covers."""
    every = range(layers)
    return [(name, layer) for name, lens in lenses.items() for layer in filter(lens.covers, every)]


def measured(
    lenses: Mapping[str, Lens], reader: Reader, rows: Sequence[Sequence[int]], number: int
) -> Values:
    """MEASURES [covered, measures, passages] of a batch, means over the positions of a passage.

    Args:
        number: of the batch, which says what positions are drawn.
    """
    states = reader.states(rows, number)
    found = []
    for name, layer in covered(lenses, reader.subject.spec.n_layers):
        values = _measured(lenses[name], layer, states, reader.W_U)
        found.append(values.view(len(values), len(rows), -1).mean(2).cpu())
    every: Values = torch.stack(found).numpy()
    return every


def layer_rows(at: Sequence[tuple[str, int]], values: Values) -> list[dict[str, Any]]:
    """The rows of `layers.parquet`, of what is `covered`.

    Args:
        values: [covered, measures, documents]
    """
    return [_row(*each, own) for each, own in zip(at, values, strict=True)]


def _row(name: str, layer: int, values: Values) -> dict[str, Any]:
    row: dict[str, Any] = {"lens": name, "layer": layer}
    for measure, each in zip(MEASURES, values, strict=True):
        row |= mean_of(each).columns(measure)
    return row | {"documents": values.shape[1], "unit": "document"}


@torch.no_grad()
def _measured(
    lens: Lens, layer: int, states: States, W_U: Float[Tensor, "v d"]
) -> Float[Tensor, "measures n"]:
    """MEASURES at every position."""
    logits = lens.logits(states.x[layer], layer, W_U)
    said = logits.argmax(-1)
    agree = said == states.own.argmax(-1)
    return torch.stack(
        [agree.double(), (said == states.following).double(), kl_from(states.own, logits).double()]
    )
