"""Sparse autoencoders as the workbench sees them: encode, decode, and two sets of directions.

    z = encode(x) [n, d_sae]       x_hat = decode(z) = z W_dec + b_dec

An adapter over sae-lens objects of any architecture, so that whatever has been trained or published
for it can be used. sae-lens (8 s of imports) is loaded only by the functions that read one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from interp.kernels.gram import Fit, Gram

from ..errors import UserError

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

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]: ...


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

    @property
    def model(self) -> str:
        """Whose activations it was trained on, as it says itself; "" if it does not."""
        return str(self.inner.cfg.metadata.model_name or "")

    @property
    def reads(self) -> str:
        """What it was trained on, if that is not the activations of its site: "linear error"."""
        return str(self.inner.cfg.metadata.reads or "")

    @property
    def normalises(self) -> str:
        """How each input is normalised; "" if it is not. Latents then lack the input's scale."""
        how = str(self.inner.cfg.normalize_activations)
        return "" if how == "none" else how

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
        """What latents give back, chunk by chunk.

        Raises:
            UserError: latents of normalised inputs, whose scale is not in them.
        """
        if self.normalises:
            raise UserError(
                f"this SAE normalises its input ({self.normalises}), so latents alone do not give "
                "x back: use Sae.reconstructions, or another SAE"
            )
        return torch.cat([self.inner.decode(part).detach() for part in torch.split(z, CHUNK)])

    def reconstructions(
        self, x: Float[Tensor, "n d_in"]
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(x, z, x_hat) in chunks, for sums over more activations than fit as latents.

        The one way for SAEs that normalise: sae-lens keeps the scale of what was encoded last.
        """
        for part in torch.split(x, CHUNK):
            z = self.encode(part)
            with torch.no_grad():
                x_hat = self.inner.decode(z).detach()
            yield part, z, x_hat


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

    @property
    def site(self) -> str:
        """The SAE's; "" if it does not say."""
        return self.sae.site

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
        UserError: no SAE there, a damaged one, or as `wrap`.
    """
    from sae_lens import SAE
    from safetensors import SafetensorError

    for name in ("cfg.json", "sae_weights.safetensors"):
        if not (folder / name).is_file():
            raise UserError(f"{folder} holds no SAE (no file {name}): give another folder")
    try:
        config = json.loads((folder / "cfg.json").read_text())
        if not isinstance(config, dict) or not isinstance(config.get("metadata", {}), dict):
            raise ValueError("its cfg.json is not what sae-lens writes")
        inner = SAE.load_from_disk(folder, device=device, dtype="float32")
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        said = " ".join(str(error).split())
        raise UserError(f"the SAE in {folder} cannot be read: {said}") from error
    return wrap(inner, str(folder))


def pretrained_sae(release: str, sae_id: str, device: str = "cpu") -> Sae:
    """A published SAE by sae-lens' names, `("gpt2-small-res-jb", "blocks.8.hook_resid_pre")`.

    Raises:
        UserError: none of these names, none to be had without a network, or as `wrap`.
    """
    from sae_lens import SAE

    try:
        inner = SAE.from_pretrained(release, sae_id, device=device)
    except ValueError as error:
        raise UserError(str(error).partition("\n")[0]) from error
    except OSError as error:  # the hub's errors are
        said = str(error).partition("\n")[0]
        raise UserError(
            f"cannot fetch {release}:{sae_id} ({said}): look at the network, or give a folder"
        ) from error
    return wrap(inner, f"{release}:{sae_id}")


def wrap(inner: SaeLens, name: str = "this SAE") -> Sae:
    """The adapter around a sae-lens object, its site read from the hook name it carries.

    Raises:
        UserError: a transcoder, weights that are not finite, or ones for activations that were
            scaled by numbers it does not hold.
    """
    about = inner.cfg.metadata
    hook = str(about.hook_name or "")
    if "transcoder" in inner.cfg.architecture() or (about.hook_name_out or hook) != hook:
        raise UserError(
            f"{name} is a transcoder: it gives {about.hook_name_out or 'something else'} for what "
            "it reads, no reconstruction of it; give an SAE"
        )
    if inner.cfg.normalize_activations in ("expected_average_only_in", "covariance_whitening"):
        raise UserError(
            f"{name} reads activations scaled beforehand ({inner.cfg.normalize_activations}) and "
            "does not hold the scale: fold it into the weights with sae-lens first"
        )
    for key, values in inner.named_parameters():
        # a latent whose threshold is infinite is one that is switched off
        if values.isnan().any() or (values.isinf().any() and key != "threshold"):
            raise UserError(f"{name} is damaged: its {key} holds a NaN or an infinity; replace it")
    return Sae(inner, site_of_hook(hook))


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
