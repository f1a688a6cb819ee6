"""Fitting a Jacobian lens: sums of J over passages, some rows of a batch's a part of the work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ..model.families import ModelSpec
from ..model.subject import Subject
from ..model.weights import Weights
from ..progress import progress
from ..runs.checkpoint import Checkpoint
from ..runs.study import TextStudy
from ..runs.study_task import StudyTask
from ..runs.workers import map_parts
from ..runs.workers_task import Workers
from ..runs.writer import RunWriter, save_tensors
from .files import FILE, said_of, tensors_of
from .jacobian import prompt_rows
from .lens import Lens

ROWS = 64
"""Rows of J in a part of the work, at most: each part makes its batch's forward pass again."""
LARGEST = 2**28
"""Bytes of a part's sums, at most, where a row's are not more."""


class Part(NamedTuple):
    """Rows of J, from `first` to before `end`, of a batch of passages."""

    batch: int
    first: int
    end: int


@dataclass(frozen=True)
class JacobianRows(StudyTask[TextStudy]):
    """Makes sums of rows of J; its config is a model, and how it is fed."""

    passages: tuple[tuple[int, ...], ...]
    skip: int
    """Positions at the beginning of a passage that do not count."""
    size: int
    """Passages in a batch."""

    def batch(self, number: int) -> tuple[tuple[int, ...], ...]:
        """The passages of a batch."""
        return self.passages[number * self.size : (number + 1) * self.size]

    def opened(self) -> Subject:
        return self.config.open_here()

    def made(self, opened: Subject, part: Part) -> tuple[dict[str, Any], np.ndarray]:
        """What the manifest says of the model, and sums [2, layers, rows, d] in float64, over the
        passages of even and of odd number."""
        taken = self.batch(part.batch)
        rows = []
        for _, found in prompt_rows(opened, taken, self.skip, part.first, part.end):
            halves = (found[:, (half - part.batch * self.size) % 2 :: 2] for half in (0, 1))
            rows.append(torch.stack([own.double().sum(1) for own in halves]).cpu())
        return self.config.facts_of(opened), torch.stack(rows, 2).numpy()


def fitted(task: JacobianRows, weights: Weights, out: RunWriter, workers: Workers) -> pd.DataFrame:
    """Fit on passages, and write the lens and its halves; `layers.parquet`'s rows.

    Args:
        weights: the model's on disk.
    """
    halves, count = _sums(task, weights.spec, out, workers), len(task.passages)
    J = halves.sum(0) / count
    maps = dict(enumerate(J.float()))
    said = said_of(lens := Lens(weights, "jacobian", maps, count))
    with out.part(FILE) as path:
        save_tensors(tensors_of(lens), path, said)
    counts = torch.tensor([count - count // 2, count // 2], dtype=torch.float64)
    means = halves / counts[:, None, None, None]
    with out.part("halves.safetensors") as path:
        save_tensors({"T": means.float()}, path, said)
    return layers_table(J, means)


def layers_table(
    fitted: Float[Tensor, "layers d d"], halves: Float[Tensor, "2 layers d d"]
) -> pd.DataFrame:
    """A row a source layer: `agreement`, `trace`, `norm` (see the module's head)."""
    one, other = halves.flatten(2).double()
    agreement = torch.nn.functional.cosine_similarity(one, other, dim=1)
    width = fitted.shape[-1]
    return pd.DataFrame(
        {
            "layer": range(len(fitted)),
            "agreement": agreement.tolist(),
            "trace": (fitted.diagonal(dim1=1, dim2=2).sum(1) / width).tolist(),
            "norm": (fitted.flatten(1).norm(dim=1) / width**0.5).tolist(),
        }
    )


def _sums(
    task: JacobianRows, spec: ModelSpec, out: RunWriter, workers: Workers
) -> Float[Tensor, "2 layers d d"]:
    """Sums of J over the passages of even and of odd number, in float64, added batch by batch;
    resumed part by part."""
    width, layers = spec.d_model, spec.n_layers - 1
    sums = torch.zeros(2, layers, width, width, dtype=torch.float64)
    checkpoint, batch, first = Checkpoint(out, "fit"), 0, 0
    if state := checkpoint.read():
        sums, batch, first = state.tensors["sums"], state.note["batch"], state.note["row"]
    done = batch * task.size * width + first * len(task.batch(batch))
    parts = _parts(task, spec, batch, first)
    with progress("fit", len(task.passages) * width, "rows", done) as advance:
        for part, (facts, found) in map_parts(task, parts, workers, advance, ordered=True):
            out.facts = {**facts, **out.facts}
            sums[:, :, part.first : part.end] += torch.from_numpy(found)
            advance((part.end - part.first) * len(task.batch(part.batch)))
            if checkpoint.due():
                checkpoint.write({"sums": sums}, {"batch": part.batch, "row": part.end})
    return sums


def _parts(task: JacobianRows, spec: ModelSpec, batch: int, first: int) -> list[Part]:
    """What is left of the work from a batch's row on. A row of J is the same in whatever part."""
    width = spec.d_model
    size = min(max(LARGEST // (2 * (spec.n_layers - 1) * width * 8), 1), ROWS)
    return [
        Part(number, row, min(row + size, width))
        for number in range(batch, -(-len(task.passages) // task.size))
        for row in range(first if number == batch else 0, width, size)
    ]
