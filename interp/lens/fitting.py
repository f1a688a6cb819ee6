"""Fitting a Jacobian lens: sums of J over passages, resumed row by row."""

from __future__ import annotations

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ..model.subject import Subject
from ..model.weights import Weights
from ..progress import progress
from ..runs.checkpoint import Checkpoint
from ..runs.writer import RunWriter, save_tensors
from .files import FILE, said_of, tensors_of
from .jacobian import prompt_rows
from .lens import Lens

TOLD = 32
"""Rows of a batch between two words of progress."""


def fitted(
    subject: Subject,
    weights: Weights,
    rows: list[list[int]],
    skip: int,
    size: int,
    out: RunWriter,
) -> pd.DataFrame:
    """Fit on passages, `size` a pass, and write the lens and its halves; `layers.parquet`'s rows.

    Args:
        weights: the model's on disk.
        skip: positions at the beginning of a passage that do not count.
    """
    halves = _sums(subject, rows, skip, size, out)
    J = halves.sum(0) / len(rows)
    maps = dict(enumerate(J.float()))
    said = said_of(lens := Lens(weights, "jacobian", maps, len(rows)))
    with out.part(FILE) as path:
        save_tensors(tensors_of(lens), path, said)
    counts = torch.tensor([len(rows[0::2]), len(rows[1::2])], dtype=torch.float64)
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
    subject: Subject, rows: list[list[int]], skip: int, size: int, out: RunWriter
) -> Float[Tensor, "2 layers d d"]:
    """Sums of J over the prompts of even and of odd number, in float64; resumed row by row."""
    width, layers = subject.spec.d_model, subject.spec.n_layers - 1
    sums = torch.zeros(2, layers, width, width, dtype=torch.float64)
    checkpoint, batch, first = Checkpoint(out, "fit"), 0, 0
    if state := checkpoint.read():
        sums, batch, first = state.tensors["sums"], state.note["batch"], state.note["row"]
    done = batch * size * width + first * len(rows[batch * size : (batch + 1) * size])
    with progress("fit", len(rows) * width, "rows", done) as advance:
        for start in range(batch * size, len(rows), size):
            taken = rows[start : start + size]
            for i, found in prompt_rows(subject, taken, skip, first):
                for half in (0, 1):
                    own = found[:, (half - start) % 2 :: 2]
                    sums[half, :, i] += own.double().sum(1).cpu()
                if (i + 1) % TOLD == 0:
                    advance(TOLD * len(taken))
                if checkpoint.due():
                    checkpoint.write({"sums": sums}, {"batch": start // size, "row": i + 1})
            first = 0
    return sums
