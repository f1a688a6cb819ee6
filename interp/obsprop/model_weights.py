"""The weights that observables are taken back through, stacked by layer in one dtype.

`StackedWeights` holds every head's W_V and W_O (0.8 GB in float32 for a model of 1.3 billion
parameters) and every norm; it reads an MLP when that MLP is first asked for. The naive equivalent
of an `Mlp` is the transformers module of the layer; of a head, `W_O[h] @ (W_V[h] @ x + b_V[h])`.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import UserError
from ..model.weights import NormKind, Weights
from ..progress import waiting
from .norms import NoNorm, Norm
from .observables import Observable


class Mlp:
    """One layer's MLP, from what it reads (after its norm) to what it gives (before a post-norm):
    down(act(up x + b) [* (gate x + b)]), with the activation on the gate where there is one, and
    times what the family scales it by."""

    def __init__(self, weights: Weights, layer: int, dtype: torch.dtype) -> None:
        from transformers.activations import ACT2FN

        kinds, self._scale = weights.spec.kinds, weights.spec.residual_scale
        self._act: Any = ACT2FN[weights.spec.activation]
        self._rows = {kind: weights.neurons(kind, layer).to(dtype) for kind in kinds}  # type: ignore[arg-type]
        self._bias = {kind: weights.bias(kind, layer).to(dtype) for kind in kinds}  # type: ignore[arg-type]

    def __call__(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        up = x @ self._rows["up"].T + self._bias["up"]
        if "gate" not in self._rows:
            return self.down(self._act(up))
        return self.down(up * self._act(x @ self._rows["gate"].T + self._bias["gate"]))

    def down(self, hidden: Float[Tensor, "... d_mlp"]) -> Float[Tensor, "... d"]:
        """The last projection alone, of what `mlp_post` holds."""
        out: Tensor = (hidden @ self._rows["down"] + self._bias["down"]) * self._scale
        return out


class StackedWeights:
    """Heads [layer, ...], norms and MLPs of a model.

    Raises:
        UserError: it has layers of experts, or heads that do not read the stream.
    """

    def __init__(self, stored: Weights, dtype: torch.dtype = torch.float32) -> None:
        stored.check_dense("observable propagation")
        self.stored, self.spec, self.dtype = stored, stored.spec, dtype
        if self.spec.family.gated_heads or self.spec.n_experts:
            what = "experts" if self.spec.n_experts else "gates behind its heads"
            raise UserError(
                f"a {self.spec.model_type} model has {what}, through which no observable is taken "
                "back: use a model without"
            )
        layers = range(self.spec.n_layers)
        with waiting("read the heads' weights"):
            self.W_V, self.b_V, self.W_O, self.b_O = (
                torch.stack([view(layer).to(dtype) for layer in layers])
                for view in (stored.W_V, stored.b_V, stored.W_O, stored.b_O)
            )
        """[layer, kv, k, d], [layer, kv, k], [layer, head, d, k], [layer, d]"""
        self.W_O *= self.spec.residual_scale  # so that they are what is added
        self.b_O *= self.spec.residual_scale
        kinds: tuple[NormKind, ...] = ("attn", "attn_post", "mlp", "mlp_post")
        self._norms = {(kind, i): self._norm(kind, i) for kind in kinds for i in layers}
        self.final_norm = cast(Norm, self._norm("final"))
        ones = torch.ones(self.spec.d_model, dtype=dtype)
        self._no_norm = NoNorm(ones, torch.zeros_like(ones), 0.0, False)
        self._mlps: dict[int, Mlp] = {}

    def _norm(self, kind: NormKind, layer: int | None = None) -> Norm | None:
        stored = self.stored.norm(kind, layer)
        if stored is None:
            return None
        gain, offset = (x.to(self.dtype) for x in stored)
        return Norm(gain, offset, self.spec.eps, self.spec.norm == "layer")

    def norm(self, kind: NormKind, layer: int) -> Norm:
        """The norm that attention or the MLP of a layer reads through."""
        return self._norms[kind, layer] or self._no_norm

    def post_norm(self, kind: NormKind, layer: int) -> Norm | None:
        """The norm that what they add goes through, where the family has one."""
        return self._norms[f"{kind}_post", layer]  # type: ignore[index]

    @cached_property
    def W_U(self) -> Float[Tensor, "d_vocab d_model"]:
        return self.stored.W_U()

    def start(self, observable: Observable) -> Float[Tensor, " d_model"]:
        """m0, what reads the final norm's output, in the dtype of the other weights."""
        return observable.start(self.W_U).to(self.dtype)

    def mlp(self, layer: int) -> Mlp:
        if layer not in self._mlps:
            self._mlps[layer] = Mlp(self.stored, layer, self.dtype)
        return self._mlps[layer]

    def kv(self, head: int) -> int:
        """The kv head whose values a head uses."""
        return head // (self.spec.n_heads // self.spec.n_kv_heads)
