"""The name of an attention head."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from ..errors import UserError

if TYPE_CHECKING:
    from ..model.families import ModelSpec


class Head(NamedTuple):
    """A head of a layer."""

    layer: int
    number: int

    def __str__(self) -> str:
        return f"{self.layer}.{self.number}"

    @classmethod
    def parse(cls, text: str, spec: ModelSpec) -> Head:
        """'5.3'.

        Raises:
            UserError: no head's name, or none that the model has.
        """
        match = re.fullmatch(r"([0-9]{1,9})\.([0-9]{1,9})", text.strip())
        if not match:
            raise UserError(f"'{text}' names no head: write layer.head, such as 5.3")
        head = cls(*map(int, match.groups()))
        if head.layer >= spec.n_layers or head.number >= spec.n_heads:
            raise UserError(
                f"there is no head {head}: this model has layers 0..{spec.n_layers - 1} with heads "
                f"0..{spec.n_heads - 1}"
            )
        return head

    def kv(self, spec: ModelSpec) -> int:
        """The kv head whose values it reads."""
        return self.number * spec.n_kv_heads // spec.n_heads
