"""One way to read a vector at any layer in the model's own vocabulary.

    an activation    logits = cap(W_U norm(T_l h) + b_U)
    a direction      W_U (gain * T_l v)

    raw        T_l = I, and no gain for a direction: W_U v (Davies 2024; nostalgebraist 2020)
    final      T_l = I: the logit lens
    jacobian   T_l = J_l, fitted by `interp lens fit` (Gurnee et al. 2026)

norm, head, scale and soft cap are the model's own; gain is that of the final norm. J_l is of what
block l gives, and a vector of the stream inside of block l is taken for a part of that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import UserError
from ..model.files import sha256
from ..model.site import Site
from ..model.weights import Weights
from ..runs.parts import check_part

PLAIN = ("raw", "final")
"""Lenses that need no fit."""
FILE = "lens.safetensors"
_IN_BLOCK = ("attn_out", "resid_mid", "mlp_in", "mlp_out", "resid_post")
"""Sites of the stream's width that are read through J_l."""


@dataclass(frozen=True)
class Lens:
    """A lens of one model."""

    weights: Weights
    name: str
    """raw, final or jacobian."""
    maps: Mapping[int, Float[Tensor, "d d"]] = field(default_factory=dict)
    """J_l by layer, of those that are fitted; the last layer's is the identity."""
    prompts: int = 0
    """How many it was fitted on."""
    fingerprint: str = ""
    """sha256 of the file that it is from."""

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
        """J_l; None for the identity.

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
        plain = self.name in PLAIN
        carried = vectors.double() if plain else self._carried(vectors, self.layer_of(site))
        return (carried * self.weights.gain("final").double()).float()

    def logits(
        self, x: Float[Tensor, "... d"], layer: int, W_U: Float[Tensor, "v d"] | None = None
    ) -> Float[Tensor, "... v"]:
        """Logits of the stream after a layer, in float32.

        Args:
            W_U: the model's unembedding, if it is at hand.
        """
        normed = self.weights.before_unembedding(self._carried(x, layer)).float()
        head = self.weights.W_U() if W_U is None else W_U
        logits: Tensor = self.weights.spec.capped(normed @ head.T + self.weights.b_U())
        return logits

    def _carried(self, x: Float[Tensor, "... d"], layer: int) -> Float[Tensor, "... d"]:
        """T_l x in float64."""
        fitted = self.map(layer)
        return x.double() if fitted is None else x.double() @ fitted.double().T


def open_lens(asked: str, weights: Weights) -> Lens:
    """A lens by name, or from a file or a run's folder.

    Args:
        asked: raw, final; a folder of `interp lens fit`; its lens.safetensors; or a published .pt
            file with J, n_prompts, source_layers, d_model.

    Raises:
        UserError: none there, a damaged one, or one of another model's sizes.
    """
    if asked in PLAIN:
        return Lens(weights, asked)
    path = Path(asked).expanduser()
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise UserError(
            f"'{asked}' is no lens: write raw, final, or the folder of a run of `interp lens fit`"
        )
    with _readable(path):
        maps, prompts = _of_torch(path) if path.suffix == ".pt" else _of_safetensors(path)
    width, layers = weights.spec.d_model, weights.spec.n_layers
    for layer, fitted in maps.items():
        if fitted.shape != (width, width) or not 0 <= layer < layers:
            sizes = " by ".join(map(str, fitted.shape))
            raise UserError(
                f"{path} has a map of {sizes} after layer {layer}: {weights} has {layers} layers "
                f"of {width} numbers"
            )
        if not bool(fitted.isfinite().all()):
            raise UserError(f"{path} holds a NaN or an infinity after layer {layer}: fit it again")
    return Lens(weights, "jacobian", maps, prompts, sha256(path))


def _of_safetensors(path: Path) -> tuple[dict[int, Tensor], int]:
    check_part(path)
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["lens"])
        stacked = file.get_tensor("J")
    return dict(zip(about["source_layers"], stacked, strict=True)), int(about["n_prompts"])


def _of_torch(path: Path) -> tuple[dict[int, Tensor], int]:
    stored = torch.load(path, map_location="cpu", weights_only=True)
    maps = {int(layer): fitted.float() for layer, fitted in stored["J"].items()}
    return maps, int(stored["n_prompts"])


def publishable(lens: Lens) -> dict[str, Any]:
    """What the published files hold, for `torch.save`."""
    return {
        "J": dict(lens.maps),
        "n_prompts": lens.prompts,
        "source_layers": sorted(lens.maps),
        "d_model": lens.weights.spec.d_model,
    }


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except UnpicklingError as error:
        raise UserError(f"cannot read {path}, it holds more than tensors and numbers") from error
    except (
        *(OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, RuntimeError),
        SafetensorError,
    ) as error:
        raise UserError(f"cannot read {path}: it is damaged, or no lens") from error
