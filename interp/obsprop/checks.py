"""Does the model use the feature? Take it out, or add to it, where it is read; read the observable.

    ablation   project_out(feature) at its site and positions: how much of the observable's gap
               between the classes is left, against random directions of the same site
    steering   add t (mean of the positive - mean of the negative, along the feature) to negative
               examples: the mean observable over t, against as much along random directions

A feature that one head reads is a direction of the whole stream, so both edits change what every
later head and MLP reads along it, not that head alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import pandas as pd
import torch
from torch import Tensor

from ..directions import Directions
from ..model.again import Again
from ..model.batch import Batch
from ..model.edits import Edit, add, project_out
from ..model.site import Site
from ..model.subject import Subject
from .opened import OpenedTask
from .propagate import readout
from .tasks import Example

Kind = Literal["ablation", "steering"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CHECKED = 30
"""Held-out examples of each class that the checks run on."""
STRENGTHS = (-1.0, 0.5, 1.0, 2.0, 4.0)
CONTROLS = 5
"""Random directions beside the feature."""


class Change(NamedTuple):
    """What one pass over the examples changes: nothing, or along one direction."""

    direction: int
    """0 for the feature, then the controls; -1 for nothing."""
    vector: Tensor | None
    strength: float = 0.0
    """Of steering: 1 is the gap between the classes along the feature."""

    def about(self, name: str) -> dict[str, Any]:
        """The first columns of its row, where the feature is called so."""
        names = {-1: "unsteered", 0: name}
        called = names.get(self.direction, f"random {self.direction - 1}")
        return {"name": called, "control": self.direction > 0}


def changes(kind: Kind, own: Tensor, seed: int) -> list[Change]:
    """The passes of a check of a feature, the one without a change first."""
    generator = torch.Generator().manual_seed(seed)
    controls = [torch.randn(len(own), generator=generator) for _ in range(CONTROLS)]
    strengths = STRENGTHS if kind == "steering" else (0.0,)
    along = enumerate([own, *controls])
    return [Change(-1, None), *(Change(i, v, t) for i, v in along for t in strengths)]


def changed(opened: OpenedTask, kind: Kind, change: Change, site: Site, length: float) -> Tensor:
    """The observable at the end of each example of a check, in float64.

    Args:
        length: the gap between the classes along the feature, as `apart` gives it.
    """
    batch, read = _batch(opened.subject, checked(opened, kind))
    edits: list[Edit] = []
    if change.vector is not None and kind == "ablation":
        edits = [project_out(site, change.vector, where=read)]
    elif change.vector is not None:
        along = change.vector / change.vector.norm()
        edits = [add(site, along, change.strength * length, where=read)]
    subject, end = opened.subject, Site("final_norm_in")
    with subject.edited(*edits):
        x = _again(subject, batch).capture([end])[end][:, -1]
    return readout(opened.weights, opened.observable)(x).double()


def _again(subject: Subject, batch: Batch) -> Again:
    """The passes of the batch that was checked last, if it is the same: the layers before the
    feature's site run once for all changes."""
    kept: Again | None = subject.beside.get("checked")
    if kept is None or not kept.of(batch):
        subject.beside["checked"] = kept = Again(subject, batch)
    return kept


def checked(opened: OpenedTask, kind: Kind) -> list[Example]:
    """The examples of a check: held-out ones of both classes, or of the negative class."""
    positive, negative = _sides(opened)
    return negative if kind == "steering" else [*positive, *negative]


def apart(opened: OpenedTask, directions: Directions) -> float:
    """How far apart the classes are along a feature."""
    positive, negative = (_mean(opened.subject, side, directions.site) for side in _sides(opened))
    unit = directions.vectors[0] / directions.vectors[0].norm()
    return float((positive - negative) @ unit)


def ablation(opened: OpenedTask, directions: Directions, values: Sequence[Tensor]) -> pd.DataFrame:
    """One row a direction taken out: name, control, gap_before, gap_after, kept (their ratio).

    Args:
        values: what `changed` gives of each of the `changes`.
    """
    labels = torch.tensor([example.positive for example in checked(opened, "ablation")])
    before, *gaps = (float(x[labels].mean() - x[~labels].mean()) for x in values)
    _, *others = changes("ablation", directions.vectors[0], opened.seed)
    rows = [
        {**change.about(_name(directions)), "gap_before": before, "gap_after": after}
        for change, after in zip(others, gaps, strict=True)
    ]
    return pd.DataFrame([{**row, "kept": row["gap_after"] / before} for row in rows])


def steering(opened: OpenedTask, directions: Directions, values: Sequence[Tensor]) -> pd.DataFrame:
    """One row a (direction, strength): name, control, strength (1 = the gap between the classes
    along the feature), observable (mean over negative examples).

    Args:
        values: as in `ablation`.
    """
    every = changes("steering", directions.vectors[0], opened.seed)
    return pd.DataFrame(
        {
            **change.about(_name(directions)),
            "strength": change.strength,
            "observable": float(x.mean()),
        }
        for change, x in zip(every, values, strict=True)
    )


def _name(directions: Directions) -> str:
    return str(directions.index["name"].iloc[0])


def _sides(opened: OpenedTask) -> tuple[list[Example], list[Example]]:
    """The examples of both classes that are checked."""
    held_out = opened.split.held_out
    positive, negative = ([e for e in held_out if e.positive is side] for side in (True, False))
    return positive[:CHECKED], negative[:CHECKED]


def _batch(subject: Subject, chosen: Sequence[Example]) -> tuple[Batch, Tensor]:
    """The examples as one batch, and a mask of the positions they are read at."""
    batch = subject.pad([example.ids for example in chosen])
    mask = torch.zeros(batch.mask.shape, dtype=torch.bool)
    for row, example in zip(mask, chosen, strict=True):
        row[torch.tensor(example.reads) + len(row) - len(example.ids)] = True
    return batch, mask.to(batch.mask.device)


def _mean(subject: Subject, chosen: Sequence[Example], site: Site) -> Tensor:
    """Mean activation at a site over what the examples are read at."""
    batch, mask = _batch(subject, chosen)
    return subject.capture(batch, [site])[site][mask].float().mean(0).cpu()
