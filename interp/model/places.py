"""Where neurons' vectors are in a model's matrices: an MLP's, an expert's, a stack's."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class Bank(NamedTuple):
    """Neurons of a layer that stand together: its MLP's, or those of one of its experts."""

    expert: str
    """"", "e0", "e1", … or "shared"."""
    size: int


class Place(NamedTuple):
    """Where the vectors of a bank's neurons of one kind are."""

    stored: str
    """The matrix's name in the files."""
    rows: bool
    """Whether a neuron is a row of it (a column otherwise)."""
    span: slice
    """The rows or columns that are these neurons'; all of them in most families."""
    shape: tuple[int, ...]
    """The matrix's; of a stack of them, the stack's."""
    entry: int | None = None
    """Which one of a stack."""
    parameter: str = ""
    """The matrix's name in transformers' causal-LM class; "" for an expert."""

    def vectors(self, matrix: Tensor) -> Float[Tensor, "neurons d_model"]:
        """A view of the matrix with one row a neuron."""
        return matrix[self.span] if self.rows else matrix[:, self.span].T


def experts_of(banks: tuple[Bank, ...]) -> str:
    """What a layer has, in words."""
    names = [bank.expert for bank in banks]
    return f"has the experts {names[0]} to {names[-1]}" if names[0] else "has no experts"
