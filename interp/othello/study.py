"""What the studies of one OthelloGPT share: the model, and how it is identified."""

from __future__ import annotations

from dataclasses import dataclass
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


def check_probes(ridge: float, passes: int) -> None:
    """Raise UserError for settings with which no probe can be fitted."""
    if not ridge > 0:
        raise UserError("--ridge must be above 0")
    if passes < 1:
        raise UserError("--passes must be at least 1")
