"""Directions of tokens: what a lens reads for a token in the stream after a layer.

    row of token t after layer l = T_l^T P (gain * W_U[t])

Its product with the stream is the token's logit through the lens, but for the final norm's scale
and what does not depend on the stream. With the raw lens it is the row of W_U itself.

Written to the run: `directions/`, a row a token; their index is `name` (the token's
text) and `token` (its id).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..runs.study import ModelStudy
from ..runs.writer import RunWriter

if TYPE_CHECKING:
    from ..lens.lens import Lens
    from .directions import Directions


@dataclass(frozen=True)
class TokenDirectionsConfig(ModelStudy):
    """Keep the directions of tokens at a layer, as a lens reads them there."""

    STUDY: ClassVar[str] = "directions.tokens"
    VERSION: ClassVar[int] = 1

    layer: int = field(kw_only=True)
    """The layer behind which the stream is read."""
    tokens: tuple[str, ...] = field(kw_only=True)
    """The tokens' exact texts, with the blank before them: ' are' ' is'."""
    lens: str = field(default="jacobian", kw_only=True, metadata={"key": False})
    """raw, final, tuned, jacobian, a run's folder or key, or a .safetensors or .pt file. Its
    fingerprint is part of the key."""

    @cached_property
    def opened_lens(self) -> Lens:
        from ..lens.files import open_lens

        return open_lens(self.lens, self.stored_weights)

    def fingerprints(self) -> dict[str, str]:
        return {**super().fingerprints(), "lens": self.opened_lens.identity}

    def check(self) -> None:
        super().check()
        if not self.tokens or len(set(self.tokens)) < len(self.tokens):
            raise UserError("--tokens takes different tokens, at least one")
        self._made()

    def run(self, out: RunWriter) -> dict[str, Any]:
        made = self._made()
        made.save_in(out, "directions")
        return {"directions": len(made), "longest": float(made.vectors.double().norm(dim=1).max())}

    def _made(self) -> Directions:
        from .sources import token_directions

        return token_directions(self.stored_weights, self.opened_lens, self.layer, self.tokens)
