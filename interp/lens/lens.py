"""One way to read a vector at any layer in the model's own vocabulary.

    an activation    logits = cap(W_U norm(T_l h + b_l) + b_U)
    a direction      W_U (gain * P T_l v)

    raw        T_l = I, and no gain for a direction: W_U v (Davies 2024; nostalgebraist 2020)
    final      T_l = I: the logit lens
    tuned      T_l h + b_l, trained by `interp lens tune` (Belrose et al. 2023)
    jacobian   T_l = J_l, fitted by `interp lens fit` (Gurnee et al. 2026)

Only the tuned lens has a b_l. norm, head, scale and soft cap are the model's own; gain is that of
the final norm, and P takes the mean away where that norm does (LayerNorm), else nothing. T_l is of
what block l gives, and a vector of the stream inside of block l is taken for a part of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import UserError
from ..model.site import Site
from ..model.weights import Weights

PLAIN = ("raw", "final")
"""Lenses that need no fit."""
_IN_BLOCK = ("attn_out", "resid_mid", "mlp_in", "mlp_out", "resid_post")
"""Sites of the stream's width that are read through T_l."""


@dataclass(frozen=True)
class Lens:
    """A lens of one model."""

    weights: Weights
    name: str
    """raw, final, tuned or jacobian."""
    maps: Mapping[int, Float[Tensor, "d d"]] = field(default_factory=dict)
    """T_l by layer, of those that are fitted; the last layer's is the identity."""
    prompts: int = 0
    """How many it was fitted on."""
    biases: Mapping[int, Float[Tensor, " d"]] = field(default_factory=dict)
    """b_l by layer; zero where there is none."""
    source: str = ""
    """The file that it is from."""
    fingerprint: str = ""
    """sha256 of that file."""

    def to(self, device: torch.device) -> Lens:
        """The same with its maps on a device, for many reads there."""
        maps, biases = (
            {layer: each.to(device) for layer, each in some.items()}
            for some in (self.maps, self.biases)
        )
        return replace(self, maps=maps, biases=biases)

    @property
    def identity(self) -> str:
        """What tells it from every other lens of the model."""
        return self.fingerprint or self.name

    @property
    def about(self) -> dict[str, str | int]:
        """What a run's manifest says of it."""
        return {"name": self.name, "prompts": self.prompts, "file": self.source}

    def layer_of(self, site: Site) -> int:
        """The layer whose map is that of a site; -1 where the tokens' embeddings are.

        Raises:
            UserError: a site that is not in the stream.
        """
        if site.kind == "final_norm_in":
            return self.weights.spec.n_layers - 1
        if site.layer is not None and site.kind in _IN_BLOCK:
            return site.layer
        if site.layer is not None and site.kind == "resid_pre":
            return site.layer - 1
        raise UserError(f"{site} is not in the residual stream: a lens reads only what is")

    def covers(self, layer: int) -> bool:
        """Whether it reads the stream after a layer."""
        last = self.weights.spec.n_layers - 1
        return self.name in PLAIN or layer == last or layer in self.maps

    def map(self, layer: int) -> Float[Tensor, "d d"] | None:
        """T_l; None for the identity.

        Raises:
            UserError: a layer that it was not fitted at.
        """
        if not self.covers(layer):
            where = "before the first layer" if layer < 0 else f"after layer {layer}"
            raise UserError(f"this lens has no map {where}: use --lens final")
        return self.maps.get(layer)

    def vectors(self, vectors: Float[Tensor, "n d"], site: Site) -> Float[Tensor, "n d"]:
        """Directions as the unembedding is to read them: `W_U @ vectors(v, site)`, in float32."""
        if self.name == "raw":
            return vectors.float()
        fitted = None if self.name in PLAIN else self.map(self.layer_of(site))
        carried = self._centred(_through(vectors, fitted))
        return (carried * self._gain.to(carried.device)).float()

    def rows(self, tokens: list[int], layer: int) -> Float[Tensor, "n d"]:
        """What the lens reads for each token in the stream after a layer, in float32: the logit of
        a token is `row @ h` over the final norm's scale, plus what does not depend on h."""
        chosen = self.weights.W_U()[tokens].double()
        if self.name != "raw":
            chosen = self._centred(chosen * self._gain)
        fitted = self.map(layer)
        return (chosen if fitted is None else chosen @ fitted.double()).float()

    @property
    def _gain(self) -> Float[Tensor, " d"]:
        """The final norm's."""
        return self.weights.gain("final").double()

    def _centred(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """P x: without the mean that the final norm takes away; P is its own transpose."""
        return x - x.mean(1, keepdim=True) if self.weights.spec.norm == "layer" else x

    def logits(
        self, x: Float[Tensor, "... d"], layer: int, W_U: Float[Tensor, "v d"] | None = None
    ) -> Float[Tensor, "... v"]:
        """Logits of the stream after a layer, in float32.

        Args:
            W_U: the model's unembedding, if it is at hand.
        """
        carried = _through(x, self.map(layer))
        if (bias := self.biases.get(layer)) is not None:
            carried = carried + bias.to(carried.device).double()
        return read(self.weights, carried, W_U)


def read(
    weights: Weights, carried: Float[Tensor, "... d"], W_U: Float[Tensor, "v d"] | None = None
) -> Float[Tensor, "... v"]:
    """Logits, in float32 and where the stream is, if it ends in what is given: norm in float64,
    head, cap."""
    normed = weights.before_unembedding(carried).float()
    head = weights.W_U() if W_U is None else W_U
    scores = normed @ head.to(normed.device).T
    logits: Tensor = weights.spec.capped(scores + weights.b_U().to(normed.device))
    return logits


def _through(x: Float[Tensor, "... d"], fitted: Tensor | None) -> Float[Tensor, "... d"]:
    """T x in float64, where x is."""
    return x.double() if fitted is None else x.double() @ fitted.to(x.device).double().T
