"""Lenses beside the model's own distribution, at some positions of passages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..model.subject import Subject
from ..progress import progress
from ..runs.intervals import mean_of
from .lens import Lens
from .states import States, drawn_places, drawn_states, kl_from

if TYPE_CHECKING:
    from .compare import LensCompareConfig

MEASURES = ("agreement", "following", "kl")


def compared(
    config: LensCompareConfig, subject: Subject, rows: list[list[int]]
) -> list[dict[str, Any]]:
    """The rows of `layers.parquet`: of every lens, at every layer that it covers."""
    W_U = subject.weights.W_U()
    found: dict[tuple[str, int], list[Tensor]] = {}
    with progress("compare", len(rows), "passages") as advance:
        for start in range(0, len(rows), config.batch_size):
            some = rows[start : start + config.batch_size]
            seed = 1_000_003 * config.seed + start
            places = drawn_places(len(some), config.length, config.skip, config.positions, seed)
            states = drawn_states(subject, W_U, some, places)
            for name, lens in config.opened.items():
                for layer in filter(lens.covers, range(subject.spec.n_layers)):
                    values = _measured(lens, layer, states, W_U)
                    each = values.unflatten(1, (len(some), -1)).mean(2)
                    found.setdefault((name, layer), []).append(each)
            advance(len(some))
    by_lens = sorted(found, key=lambda at: (list(config.opened).index(at[0]), at[1]))
    return [_row(*at, torch.cat(found[at], 1)) for at in by_lens]


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
