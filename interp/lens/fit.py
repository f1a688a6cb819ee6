"""The study `lens.fit`: a Jacobian lens of a model, fitted on a corpus.

Written to the run:
    lens.safetensors   J as T [layers - 1, d_model, d_model] float32, and what it is of (files.py)
    halves.safetensors T [2, layers - 1, d, d] of the prompts of even and of odd number
    layers.parquet     layer, agreement (cosine of the two halves' J), trace (over d_model), norm
                       (|J| / sqrt(d_model))

The prompts are the first rows of the corpus with `length` tokens, one a document. J is a mean over
prompts, so fits on other prompts can be merged by their counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import UserError
from ..runs.study import PartedStudy, TextStudy
from ..runs.writer import RunWriter


@dataclass(frozen=True)
class FitConfig(TextStudy, PartedStudy):
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
        assert self.spread
        if self.prompts < 2:
            raise UserError("--prompts must be at least 2: the two halves are compared")
        if self.batch_size < 1:
            raise UserError("--batch-size must be at least 1")
        if not 0 <= self.skip < self.length - 1:
            raise UserError("--skip must be at least 0 and leave two positions of --length")

    def run(self, out: RunWriter) -> dict[str, Any]:
        from .fitting import JacobianRows, fitted
        from .passages import passages

        rows = passages(self, self.corpus, self.length, self.prompts)
        plain = TextStudy(self.model, device=self.device, bos=self.bos)
        ids = tuple(map(tuple, rows))
        task = JacobianRows.of(plain, passages=ids, skip=self.skip, size=self.batch_size)
        table = out.table("layers", fitted(task, self.stored_weights, out, self.spread))
        return {
            "prompts": self.prompts,
            "least_agreement": float(table["agreement"].min()),
            "mean_agreement": float(table["agreement"].mean()),
        }
