"""A norm and the three ways to take a vector back through it.

    N(x) = gain * Px / sigma(x) + offset,   sigma(x) = sqrt(|Px|^2 / d + eps)

P = I - 11^T/d for LayerNorm, P = I for RMSNorm. For a vector y that reads N(x):
    ignore     y itself: the norm is taken for the identity, as only the direction matters
    frozen     P(gain * y) / sigma(x): its dot product with x is y.N(x) - y.offset exactly
    gradient   d(y.N(x))/dx: the frozen one less its component along Px, as sigma moves with x
N does not change when x is scaled, so the gradient dotted with x is zero (but for eps): it says
how a score changes and must never be used to score. The two directions nearly agree (Dunefsky &
Cohan: their cosine is about sqrt(1 - 2/d) for random x), which is why `ignore` works.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

Mode = Literal["ignore", "frozen", "gradient"]


@dataclass(frozen=True)
class Norm:
    """LayerNorm (`centred`) or RMSNorm."""

    gain: Float[Tensor, " d"]
    offset: Float[Tensor, " d"]
    eps: float
    centred: bool

    def centre(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """Px."""
        return x - x.mean(-1, keepdim=True) if self.centred else x

    def scale(self, x: Float[Tensor, "... d"]) -> Float[Tensor, ...]:
        """sigma(x)."""
        scale: Tensor = (self.centre(x).square().mean(-1) + self.eps).sqrt()
        return scale

    def __call__(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        return self.centre(x) / self.scale(x)[..., None] * self.gain + self.offset

    def fold(self, y: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """P(gain * y): y.N(x) = fold(y).x / sigma(x) + y.offset."""
        return self.centre(y * self.gain)

    def pull(
        self, y: Float[Tensor, "... d"], mode: Mode, x: Float[Tensor, "... d"] | None = None
    ) -> Float[Tensor, "... d"]:
        """y, which reads N(x), as a vector that reads x.

        Args:
            x: where the scale or the gradient is taken; `ignore` needs none.
        """
        if mode == "ignore":
            return y
        if x is None:
            raise ValueError(f"the norm mode '{mode}' needs the activation it is taken at")
        scale, folded = self.scale(x)[..., None], self.fold(y)
        if mode == "frozen":
            return folded / scale
        centred = self.centre(x)
        along = (folded * centred).sum(-1, keepdim=True) / (x.shape[-1] * scale.square())
        return (folded - along * centred) / scale


@dataclass(frozen=True)
class NoNorm(Norm):
    """What stands for a norm where a family reads the stream itself: x in, x out."""

    def centre(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        return x

    def scale(self, x: Float[Tensor, "... d"]) -> Float[Tensor, ...]:
        return x.new_ones(x.shape[:-1])

    def pull(
        self, y: Float[Tensor, "... d"], mode: Mode, x: Float[Tensor, "... d"] | None = None
    ) -> Float[Tensor, "... d"]:
        return y
