"""Sparse autoencoders as the workbench sees them: encode, decode, and two sets of directions.

    z = encode(x) [n, d_sae]       x_hat = decode(z) = z W_dec + b_dec

An adapter over sae-lens objects of any architecture, so that whatever has been trained or published
for it can be used. sae-lens (8 s of imports) is loaded only by the functions that read one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import UserError
from ..kernels.gram import Fit, Gram

CHUNK = 8192
"""Activations encoded at once."""


class SaeLens(Protocol):
    """What is asked of a sae-lens SAE."""

    cfg: Any
    W_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor

    def encode(self, x: Tensor) -> Tensor: ...

    def decode(self, feature_acts: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Sae:
    """One autoencoder and the name of the place it was trained on."""

    inner: SaeLens
    site: str
    """A site in this workbench's names, "6.resid_post"; "" if its hook is not known here."""

    @property
    def W_enc(self) -> Float[Tensor, "d_in d_sae"]:
        """Column j is what latent j reads."""
        return self.inner.W_enc.detach()

    @property
    def W_dec(self) -> Float[Tensor, "d_sae d_in"]:
        """Row j is what latent j writes."""
        return self.inner.W_dec.detach()

    @property
    def b_dec(self) -> Float[Tensor, " d_in"]:
        return self.inner.b_dec.detach()

    @property
    def d_in(self) -> int:
        return int(self.inner.cfg.d_in)

    @property
    def d_sae(self) -> int:
        return int(self.inner.cfg.d_sae)

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n d_sae"]:
        """Latent activations, dense, chunk by chunk."""
        if x.shape[-1] != self.d_in:
            raise UserError(
                f"this SAE reads {self.d_in} numbers, these activations have {x.shape[-1]}"
            )
        return torch.cat([_dense(self.inner.encode(part)) for part in torch.split(x, CHUNK)])

    @torch.no_grad()
    def decode(self, z: Float[Tensor, "n d_sae"]) -> Float[Tensor, "n d_in"]:
        return torch.cat([self.inner.decode(part).detach() for part in torch.split(z, CHUNK)])

    def reconstructions(
        self, x: Float[Tensor, "n d_in"]
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(x, z, x_hat) in chunks, for sums over more activations than fit as latents."""
        for part in torch.split(x, CHUNK):
            z = self.encode(part)
            yield part, z, self.decode(z)


class Parts(NamedTuple):
    """x = reconstruction + linear + nonlinear, up to float64's rounding; each [n, d_in]."""

    reconstruction: Tensor
    linear: Tensor
    """What of the error x - reconstruction is a linear function of x."""
    nonlinear: Tensor


@dataclass(frozen=True)
class SaeSplit:
    """An SAE and a linear map of x to its error: together they cut activations in three."""

    sae: Sae
    fit: Fit

    @classmethod
    def of(
        cls, sae: Sae, x: Float[Tensor, "n d_in"], ridge: float = 0.0, intercept: bool = True
    ) -> SaeSplit:
        """The map fitted to activations, which should not be those it is used on."""
        grams = (Gram.of(part, part - x_hat) for part, _, x_hat in sae.reconstructions(x))
        found = next(grams)
        for gram in grams:
            found = found.merge(gram)
        return cls(sae, found.solve(ridge, intercept))

    def __call__(self, x: Float[Tensor, "n d_in"]) -> Parts:
        exact = x.double()
        x_hat = torch.cat([part.double() for _, _, part in self.sae.reconstructions(x)])
        linear = self.fit(exact)
        return Parts(x_hat, linear, exact - x_hat - linear)


def load_sae(folder: Path, device: str = "cpu") -> Sae:
    """An SAE as sae-lens saves it (cfg.json, sae_weights.safetensors), in float32.

    Raises:
        UserError: no SAE there, or a damaged one.
    """
    from sae_lens import SAE
    from safetensors import SafetensorError

    try:
        inner = SAE.load_from_disk(folder, device=device, dtype="float32")
    except FileNotFoundError as error:
        raise UserError(f"{folder} holds no SAE (no {Path(str(error.filename)).name})") from error
    except (ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(f"the SAE in {folder} cannot be read: {error}") from error
    return wrap(inner)


def pretrained_sae(release: str, sae_id: str, device: str = "cpu") -> Sae:
    """A published SAE by sae-lens' names, `("gpt2-small-res-jb", "blocks.8.hook_resid_pre")`."""
    from sae_lens import SAE

    try:
        return wrap(SAE.from_pretrained(release, sae_id, device=device))
    except ValueError as error:
        raise UserError(str(error).splitlines()[0]) from error


def wrap(inner: SaeLens) -> Sae:
    """The adapter around a sae-lens object, its site read from the hook name it carries."""
    return Sae(inner, site_of_hook(str(inner.cfg.metadata.hook_name or "")))


_KINDS = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    "hook_attn_out": "attn_out",
    "hook_mlp_out": "mlp_out",
    "mlp.hook_post": "mlp_post",
    "attn.hook_z": "head_z",
}


def site_of_hook(hook: str) -> str:
    """'blocks.6.hook_resid_post' -> '6.resid_post'; '' for a hook that names no site here."""
    blocks, _, rest = hook.partition(".")
    layer, _, kind = rest.partition(".")
    known = blocks == "blocks" and layer.isdigit() and kind in _KINDS
    return f"{layer}.{_KINDS[kind]}" if known else ""


def hook_of_site(site: str) -> str:
    """'6.resid_post' -> 'blocks.6.hook_resid_post', the name to store in an SAE's metadata."""
    layer, _, kind = site.partition(".")
    names = {ours: theirs for theirs, ours in _KINDS.items()}
    if kind not in names or not layer.isdigit():
        raise UserError(f"sae-lens has no hook for the site '{site}'")
    return f"blocks.{layer}.{names[kind]}"


def _dense(z: Tensor) -> Tensor:
    return (z.to_dense() if z.is_sparse else z).detach()
