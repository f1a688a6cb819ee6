"""Does the model use the feature? Take it out, or add to it, where it is read; read the observable.

    ablation   project_out(feature) at its site and positions: how much of the observable's gap
               between the classes is left, against random directions of the same site
    steering   add t (mean of the positive - mean of the negative, along the feature) to negative
               examples: the mean observable over t, against as much along random directions

A feature that one head reads is a direction of the whole stream, so both edits change what every
later head and MLP reads along it, not that head alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ..directions import Directions
from ..model.batch import Batch
from ..model.edits import Edit, add, project_out
from ..model.site import Site
from ..model.subject import Subject
from ..progress import progress
from .opened import OpenedTask
from .propagate import readout
from .tasks import Example

STRENGTHS = (-1.0, 0.5, 1.0, 2.0, 4.0)
CONTROLS = 5
"""Random directions beside the feature."""


def ablation(opened: OpenedTask, chosen: Sequence[Example], directions: Directions) -> pd.DataFrame:
    """One row a direction taken out: name, control, gap_before, gap_after, kept (their ratio)."""
    batch, read = _batch(opened.subject, chosen)
    labels = torch.tensor([example.positive for example in chosen])

    def gap(*edits: Edit) -> float:
        values = _values(opened, batch, *edits)
        return float(values[labels].mean() - values[~labels].mean())

    before, rows = gap(), []
    with progress("ablation", 1 + CONTROLS, "directions") as advance:
        for about, vector in _with_controls(directions, opened.seed):
            after = gap(project_out(directions.site, vector, where=read))
            gaps = {"gap_before": before, "gap_after": after, "kept": after / before}
            rows.append(about | gaps)
            advance(1)
    return pd.DataFrame(rows)


def steering(opened: OpenedTask, chosen: Sequence[Example], directions: Directions) -> pd.DataFrame:
    """One row a (direction, strength): name, control, strength (1 = the gap between the classes
    along the feature), observable (mean over negative examples)."""
    sides = [[e for e in chosen if e.positive is side] for side in (True, False)]
    positive, negative = (_mean(opened.subject, side, directions.site) for side in sides)
    unit = directions.vectors[0] / directions.vectors[0].norm()
    length = float((positive - negative) @ unit)
    batch, read = _batch(opened.subject, sides[1])
    plain = {"name": "unsteered", "control": False, "strength": 0.0}
    rows = [{**plain, "observable": float(_values(opened, batch).mean())}]
    with progress("steering", (1 + CONTROLS) * len(STRENGTHS), "passes") as advance:
        for about, vector in _with_controls(directions, opened.seed):
            for strength in STRENGTHS:
                along = vector / vector.norm()
                edit = add(directions.site, along, strength * length, where=read)
                value = float(_values(opened, batch, edit).mean())
                rows.append({**about, "strength": strength, "observable": value})
                advance(1)
    return pd.DataFrame(rows)


def _with_controls(directions: Directions, seed: int) -> Iterator[tuple[dict[str, Any], Tensor]]:
    """The feature, then random directions: what their rows begin with, and the vector."""
    own = directions.vectors[0]
    yield {"name": str(directions.index["name"].iloc[0]), "control": False}, own
    generator = torch.Generator().manual_seed(seed)
    for i in range(CONTROLS):
        yield {"name": f"random {i}", "control": True}, torch.randn(len(own), generator=generator)


def _batch(subject: Subject, chosen: Sequence[Example]) -> tuple[Batch, Tensor]:
    """The examples as one batch, and a mask of the positions they are read at."""
    batch = subject.pad([example.ids for example in chosen])
    mask = torch.zeros_like(batch.mask)
    for row, example in zip(mask, chosen, strict=True):
        row[torch.tensor(example.reads) + len(row) - len(example.ids)] = True
    return batch, mask


def _values(opened: OpenedTask, batch: Batch, *edits: Edit) -> Tensor:
    """The observable at the end of each example."""
    subject, end = opened.subject, Site("final_norm_in")
    with subject.edited(*edits):
        x = subject.capture(batch, [end])[end][:, -1]
    return readout(opened.weights, opened.observable)(x).double()


def _mean(subject: Subject, chosen: Sequence[Example], site: Site) -> Tensor:
    """Mean activation at a site over what the examples are read at."""
    batch, mask = _batch(subject, chosen)
    return subject.capture(batch, [site])[site][mask].float().mean(0).cpu()
