"""Does the model use the feature? Take it out, or add to it, where it is read; read the observable.

    ablation   project_out(feature) at its site and positions: how much of the observable's gap
               between the classes is left, against random directions of the same site
    steering   add t (mean of the positive - mean of the negative, along the feature) to negative
               examples: the mean observable over t, against as much along random directions

A feature that one head reads is a direction of the whole stream, so both edits change what every
later head and MLP reads along it, not that head alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..directions import Directions
from ..model.edits import Edit, add, project_out
from ..model.site import Site
from ..model.subject import Batch, Subject
from ..progress import progress
from .tasks import Example

Readout = Callable[[Tensor], Tensor]
"""Activations at `final_norm_in` -> values of the observable: `propagate.readout`."""
STRENGTHS = (-1.0, 0.5, 1.0, 2.0, 4.0)


def ablation(
    subject: Subject,
    observable: Readout,
    chosen: Sequence[Example],
    directions: Directions,
    seed: int = 0,
    controls: int = 5,
) -> pd.DataFrame:
    """One row a direction taken out: name, control, gap_before, gap_after, kept (their ratio)."""
    labels = np.array([example.positive for example in chosen])
    batch, mask = _batch(subject, chosen)
    before = _gap(_values(subject, observable, batch), labels)
    rows = []
    with progress("ablation", 1 + controls, "directions") as advance:
        for name, vector in _with_controls(directions, controls, seed):
            edit = project_out(directions.site, vector, where=mask)
            after = _gap(_values(subject, observable, batch, edit), labels)
            gaps = {"gap_before": before, "gap_after": after, "kept": after / before}
            rows.append({"name": name, "control": name.startswith("random"), **gaps})
            advance(1)
    return pd.DataFrame(rows)


def steering(
    subject: Subject,
    observable: Readout,
    chosen: Sequence[Example],
    directions: Directions,
    seed: int = 0,
    controls: int = 5,
) -> pd.DataFrame:
    """One row a (direction, strength): name, control, strength (1 = the gap between the classes
    along the feature), observable (mean over negative examples)."""
    positive, negative = ([e for e in chosen if e.positive is side] for side in (True, False))
    unit = directions.vectors[0] / directions.vectors[0].norm()
    gap = _mean(subject, positive, directions) - _mean(subject, negative, directions)
    length = float(gap @ unit)
    batch, mask = _batch(subject, negative)
    plain = float(_values(subject, observable, batch).mean())
    rows = [{"name": "unsteered", "control": False, "strength": 0.0, "observable": plain}]
    with progress("steering", (1 + controls) * len(STRENGTHS), "passes") as advance:
        for name, vector in _with_controls(directions, controls, seed):
            along = vector / vector.norm()
            for strength in STRENGTHS:
                edit = add(directions.site, along, strength * length, where=mask)
                value = float(_values(subject, observable, batch, edit).mean())
                about = {"name": name, "control": name.startswith("random")}
                rows.append({**about, "strength": strength, "observable": value})
                advance(1)
    return pd.DataFrame(rows)


def _with_controls(directions: Directions, controls: int, seed: int) -> list[tuple[str, Tensor]]:
    own = directions.vectors[0]
    generator = torch.Generator().manual_seed(seed)
    random = [(f"random {i}", torch.randn(len(own), generator=generator)) for i in range(controls)]
    return [(str(directions.index["name"].iloc[0]), own), *random]


def _batch(subject: Subject, chosen: Sequence[Example]) -> tuple[Batch, Tensor]:
    """The examples as one batch, and a mask of the positions they are read at."""
    batch = subject.pad([example.ids for example in chosen])
    mask = torch.zeros_like(batch.mask)
    for row, example in enumerate(chosen):
        shift = batch.ids.shape[1] - len(example.ids)
        mask[row, torch.tensor(example.reads) + shift] = True
    return batch, mask


def _values(subject: Subject, observable: Readout, batch: Batch, *edits: Edit) -> Tensor:
    end = Site("final_norm_in")
    with subject.edited(*edits):
        return observable(subject.capture(batch, [end])[end][:, -1]).double()


def _gap(values: Tensor, positive: np.ndarray[Any, Any]) -> float:
    labels = torch.from_numpy(positive)
    return float(values[labels].mean() - values[~labels].mean())


def _mean(subject: Subject, chosen: Sequence[Example], directions: Directions) -> Tensor:
    """Mean activation at the site over what the examples are read at."""
    batch, mask = _batch(subject, chosen)
    return subject.capture(batch, [directions.site])[directions.site][mask].float().mean(0).cpu()
