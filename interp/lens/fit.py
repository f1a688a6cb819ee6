"""The study `lens.fit`: a Jacobian lens of a model, fitted on a corpus.

    lens.safetensors   J [layers - 1, d_model, d_model] float32, and what it is of in its metadata
    halves.safetensors the same from the prompts of even and of odd number [2, layers - 1, d, d]
    layers.parquet     layer, agreement (cosine of the two halves' J), trace (over d_model), norm
                       (|J| / sqrt(d_model))

The prompts are the first rows of the corpus with `length` tokens, one a document. J is a mean over
prompts, so fits on other prompts can be merged by their counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import UserError
from ..model.subject import Subject
from ..progress import progress
from ..runs.checkpoint import Checkpoint
from ..runs.study import TextStudy
from ..runs.writer import RunWriter, save_tensors
from ..text.corpus import read_corpus, token_rows
from .jacobian import prompt_rows, sources

TOLD = 32
"""Rows of a batch between two words of progress."""


@dataclass(frozen=True)
class FitConfig(TextStudy):
    """Fit the Jacobian lens of a model: one backward pass for each number of the stream and batch
    of prompts, no training."""

    STUDY: ClassVar[str] = "lens.fit"
    VERSION: ClassVar[int] = 1

    corpus: str = ""
    """A text file, .jsonl, .parquet, folder or saved dataset; by default the installed Python's
    documentation and code."""
    prompts: int = 100
    """Passages, each of another document."""
    length: int = 128
    """Tokens in a passage."""
    skip: int = 16
    """Positions at the beginning of a passage that do not count: attention sinks."""
    batch_size: int = 4
    """Passages in a pass."""

    def check(self) -> None:
        super().check()
        if self.prompts < 2:
            raise UserError("--prompts must be at least 2: the two halves are compared")
        if self.batch_size < 1:
            raise UserError("--batch-size must be at least 1")
        if not 0 <= self.skip < self.length - 1:
            raise UserError("--skip must be at least 0 and leave two positions of --length")

    def run(self, out: RunWriter) -> dict[str, Any]:
        subject = self.open(out)
        rows = list(self._passages(subject))
        halves = _fitted(self, subject, rows, out)
        fitted = halves.sum(0) / self.prompts
        about = {
            "model": self.model,
            "n_prompts": self.prompts,
            "source_layers": [site.layer for site in sources(subject)],
            "d_model": fitted.shape[-1],
        }
        with out.part("lens.safetensors") as path:
            save_tensors({"J": fitted.float()}, path, {"lens": json.dumps(about)})
        counts = torch.tensor([len(rows[0::2]), len(rows[1::2])], dtype=torch.float64)
        means = halves / counts[:, None, None, None]
        with out.part("halves.safetensors") as path:
            save_tensors({"J": means.float()}, path, {"lens": json.dumps(about)})
        table = layers_table(fitted, means)
        out.table("layers", table)
        return {
            "prompts": self.prompts,
            "least_agreement": float(table["agreement"].min()),
            "mean_agreement": float(table["agreement"].mean()),
        }

    def _passages(self, subject: Subject) -> Iterator[list[int]]:
        """Rows of ids of full length, each mostly of another document.

        Raises:
            UserError: the corpus has too few.
        """
        texts = read_corpus(self.corpus or None)
        numbered = token_rows(texts, subject.prompting, self.length, 10**12).numbered
        seen: set[int] = set()
        for document, ids in numbered:
            if len(ids) == self.length and document not in seen:
                seen.add(document)
                yield ids
            if len(seen) == self.prompts:
                return
        raise UserError(
            f"the corpus has {len(seen)} documents with passages of {self.length} tokens: ask for "
            "fewer --prompts, or give more text"
        )


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


def _fitted(
    config: FitConfig, subject: Subject, rows: list[list[int]], out: RunWriter
) -> Float[Tensor, "2 layers d d"]:
    """Sums of J over the prompts of even and of odd number, in float64; resumed row by row."""
    width, layers = subject.spec.d_model, subject.spec.n_layers - 1
    sums = torch.zeros(2, layers, width, width, dtype=torch.float64)
    checkpoint, batch, first = Checkpoint(out, "fit"), 0, 0
    if state := checkpoint.read():
        sums, batch, first = state.tensors["sums"], state.note["batch"], state.note["row"]
    size = config.batch_size
    done = batch * size * width + first * len(rows[batch * size : (batch + 1) * size])
    with progress("fit", len(rows) * width, "rows", done) as advance:
        for start in range(batch * size, len(rows), size):
            taken = rows[start : start + size]
            for i, found in prompt_rows(subject, taken, config.skip, first):
                for half in (0, 1):
                    own = found[:, (half - start) % 2 :: 2]
                    sums[half, :, i] += own.double().sum(1).cpu()
                if (i + 1) % TOLD == 0:
                    advance(TOLD * len(taken))
                if checkpoint.due():
                    checkpoint.write({"sums": sums}, {"batch": start // size, "row": i + 1})
            first = 0
    return sums
