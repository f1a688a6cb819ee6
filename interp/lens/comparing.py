"""Lenses beside the model's own distribution, at some positions of passages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..progress import progress
from ..runs.intervals import mean_of
from .lens import Lens
from .states import Reader, States, kl_from

MEASURES = ("agreement", "following", "kl")


def compared(
    lenses: Mapping[str, Lens], reader: Reader, passages: list[list[list[int]]]
) -> list[dict[str, Any]]:
    """The rows of `layers.parquet`: of every lens, at every layer that it covers.

    Args:
        passages: in batches, each of another document.
    """
    layers = range(reader.subject.spec.n_layers)
    at = [(name, layer) for name, lens in lenses.items() for layer in filter(lens.covers, layers)]
    found: list[list[Tensor]] = [[] for _ in at]
    with progress("compare", sum(map(len, passages)), "passages") as advance:
        for number, rows in enumerate(passages):
            states = reader.states(rows, number)
            for values, (name, layer) in zip(found, at, strict=True):
                measured = _measured(lenses[name], layer, states, reader.W_U)
                values.append(measured.view(len(measured), len(rows), -1).mean(2))
            advance(len(rows))
    return [_row(*each, torch.cat(values, 1)) for each, values in zip(at, found, strict=True)]


def _row(name: str, layer: int, values: Float[Tensor, "measures documents"]) -> dict[str, Any]:
    row: dict[str, Any] = {"lens": name, "layer": layer}
    for measure, each in zip(MEASURES, values, strict=True):
        row |= mean_of(each.numpy()).columns(measure)
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
