"""The study `lens.tune`: a tuned lens, an affine map a layer (Belrose et al. 2023).

    logits = cap(W_U norm(A_l h + b_l) + b_U),   trained by KL(model's p || lens' p)

    A_l = I + s W diag(1/r),   b_l = s beta

s is the root mean square of the stream after layer l and r that of each of its numbers, over the
first passages: so each learned number moves what it moves by about as much, though some numbers of
a stream are a hundred times larger than others. W and beta begin at 0, which is the logit lens. In
a step every layer learns from some positions of each passage, drawn at random: the LM head costs
more than all the rest.

Written to the run:
    lens.safetensors   A_l as T, and b_l (files.py)
    layers.parquet     layer, logit_kl, kl: KL of the model's distribution from the logit lens' and
                       from this one's, sum p log(p/q), over passages of other documents, nats
    curve.parquet      step, kl: mean over the layers, on that step's positions before the step
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import UserError
from ..runs.study import TextStudy
from ..runs.writer import RunWriter


@dataclass(frozen=True)
class TuneConfig(TextStudy):
    """Train a tuned lens of a model: an affine map a layer, by the KL of the model's
    distribution from the lens'."""

    STUDY: ClassVar[str] = "lens.tune"
    VERSION: ClassVar[int] = 1

    corpus: str = ""
    """A text file, .jsonl, .parquet, folder or saved dataset; by default the installed Python's
    documentation and code."""
    prompts: int = 240
    """Passages to learn from, each of another document."""
    held_out: int = 24
    """Passages of further documents, for the KL before and after."""
    length: int = 128
    """Tokens in a passage."""
    skip: int = 16
    """Positions at the beginning of a passage that do not count: attention sinks."""
    positions: int = 8
    """Positions of a passage that are learned from, drawn at random."""
    batch_size: int = 4
    """Passages in a step."""
    rate: float = 1e-3
    """Adam's learning rate at the beginning; it falls to 0."""
    seed: int = 0
    """Seed of the positions."""

    def check(self) -> None:
        super().check()
        if min(self.prompts, self.held_out, self.batch_size, self.positions) < 1:
            raise UserError(
                "--prompts, --held-out, --batch-size and --positions must be at least 1"
            )
        if not 0 <= self.skip < self.length - self.positions:
            raise UserError("--skip must be at least 0 and leave more than --positions of --length")
        if not 0 < self.rate < 1:
            raise UserError(f"--rate must be between 0 and 1, not {self.rate:g}")

    def run(self, out: RunWriter) -> dict[str, Any]:
        from .passages import batches, passages
        from .states import Reader
        from .tuning import tuned

        subject = self.open(out)
        rows = passages(subject, self.corpus, self.length, self.prompts + self.held_out)
        learned, others = (
            batches(some, self.batch_size) for some in (rows[: self.prompts], rows[self.prompts :])
        )
        weights = self.stored_weights
        W_U = weights.W_U().to(subject.device)
        reader = Reader(subject, weights, W_U, self.skip, self.positions, self.seed)
        table = out.table("layers", tuned(reader, learned, others, self.rate, out))
        return {
            "prompts": self.prompts,
            "logit_kl": float(table["logit_kl"].mean()),
            "kl": float(table["kl"].mean()),
            "layers_that_fell": int((table["kl"] < table["logit_kl"]).sum()),
        }
