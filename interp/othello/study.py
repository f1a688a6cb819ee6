"""What the studies of one OthelloGPT share: the model, and how it is identified."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import UserError
from ..runs.study import ModelStudy

if TYPE_CHECKING:
    from ..model.weights import Weights


@dataclass(frozen=True)
class OthelloStudy(ModelStudy):
    """A study of one OthelloGPT. It has no tokenizer: its token ids are squares (board.py)."""

    model: str = "othello-gpt"
    """An OthelloGPT: the shipped one, or a folder."""

    def fingerprints(self) -> dict[str, str]:
        return {"model": open_othello(self.model).fingerprint()}


def open_othello(model: str) -> Weights:
    """The weights of an OthelloGPT.

    Raises:
        UserError: the vocabulary is not that of an OthelloGPT.
    """
    from ..model.weights import open_weights

    weights = open_weights(model)
    if weights.spec.d_vocab != 61:
        raise UserError(
            f"{model} is not an OthelloGPT: its vocabulary has {weights.spec.d_vocab} tokens, "
            "not 61"
        )
    return weights


@dataclass(frozen=True)
class ProbedStudy(OthelloStudy):
    """A study that fits linear probes."""

    ridge: float = field(default=1e-4, kw_only=True)
    """Ridge of the probes (see interp/probes/linear.py)."""
    passes: int = field(default=30, kw_only=True)
    """Maximum passes of a probe's optimiser."""

    def check(self) -> None:
        super().check()
        if not self.ridge > 0:
            raise UserError("--ridge must be above 0")
        if self.passes < 1:
            raise UserError("--passes must be at least 1")
