"""The study `circuits.roles`: what every head of a model looks at, on random tokens said twice.

A sequence is t_1 … t_n t_1 … t_n of random tokens, no two of t alike, behind the model's own start.
Each score but the last is a mean of the pattern over sequences and queries q: at q - 1 (previous),
at the first position (first), at q itself (own), and of queries in the second copy at the token's
earlier occurrence, q - n (duplicate), and at what followed it, q - n + 1 (induction; Olsson et al.
2022, "In-context learning and induction heads"). Random tokens say nothing, so what a head does by
meaning alone has no score here. `copying` is of the weights:

    sum of lambda / sum of |lambda|    lambda: the eigenvalues of W_U OV norm(W_E)

1 where what is read makes the same token likelier, -1 where it makes it less likely (Elhage et al.
2021, "A Mathematical Framework for Transformer Circuits"; the eigenvalues are those of a matrix
[d_head, d_head]). It is of the embedding itself, which late layers do not see.

Tables of the run:
`heads.parquet`: layer int, head int, previous double, first double, own double, duplicate double,
    induction double, copying double (NaN where values cannot be read from the weights)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import UserError
from ..runs.study import TextStudy
from ..runs.writer import RunWriter


@dataclass(frozen=True)
class RolesConfig(TextStudy):
    """Score every head of a model: previous token, first token, duplicate, induction, copying."""

    STUDY: ClassVar[str] = "circuits.roles"
    VERSION: ClassVar[int] = 1

    length: int = 25
    """Random tokens of a sequence, which is said twice."""
    sequences: int = 20
    """How many."""
    seed: int = 0
    """Of the random tokens."""

    def check(self) -> None:
        super().check()
        if self.length < 2 or self.sequences < 1:
            raise UserError("give at least 2 tokens as --length and one of --sequences")

    def run(self, out: RunWriter) -> dict[str, Any]:
        from .role_tables import role_tables

        return role_tables(self, out)
