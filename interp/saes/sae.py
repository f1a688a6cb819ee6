"""Sparse autoencoders as the workbench sees them: encode, decode, and two sets of directions.

    z = encode(x) [n, d_sae]       x_hat = decode(z) = z W_dec + b_dec

An adapter over sae-lens objects of any architecture, so that whatever has been trained or published
for it can be used. `open.py` opens them; nothing here imports sae-lens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from interp.kernels.gram import Fit, Gram

from ..errors import UserError
from ..model.prompting import Bos, Prompting

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
    """One autoencoder and the site it was trained on."""

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
    def bos(self) -> Bos:
        """Whether the texts that it was trained on began with a BOS token; "auto" if it does not
        say."""
        return bos_said(self.inner.cfg.metadata.prepend_bos)

    def no_data(self, prompting: Prompting) -> tuple[int, ...]:
        """The ids that it was not trained on (`exclude_special_tokens`: all special ones, none, or
        a list); the model's special tokens if it does not say. BOS is never data."""
        excluded = self.inner.cfg.metadata.exclude_special_tokens
        if excluded is None or excluded is True:
            return prompting.special
        return (*prompting.start, *map(int, excluded or ()))

    @property
    def normalises(self) -> str:
        """How each input is normalised, "" if it is not. Latents of a normalised input lack its
        scale."""
        how = str(self.inner.cfg.normalize_activations)
        return "" if how == "none" else how

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n d_sae"]:
        """Latent activations, dense, chunk by chunk."""
        if x.shape[-1] != self.d_in:
            raise UserError(
                f"this SAE reads {self.d_in} numbers, these activations have {x.shape[-1]}"
            )
        return torch.cat([self.inner.encode(part).to_dense() for part in torch.split(x, CHUNK)])

    @torch.no_grad()
    def decode(self, z: Float[Tensor, "n d_sae"]) -> Float[Tensor, "n d_in"]:
        """The reconstruction that latents give, chunk by chunk.

        Raises:
            UserError: latents of normalised inputs, whose scale is not in them.
        """
        if self.normalises:
            raise UserError(
                f"this SAE normalises its input ({self.normalises}), so latents alone do not give "
                "x back: use Sae.reconstructions, or another SAE"
            )
        return torch.cat([self.inner.decode(part) for part in torch.split(z, CHUNK)])

    def reconstructions(
        self, x: Float[Tensor, "n d_in"]
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(x, z, x_hat) in chunks, for sums over more activations than fit as latents.

        SAEs that normalise can be used only so: sae-lens keeps the scale of its last input.
        """
        for part in torch.split(x, CHUNK):
            z = self.encode(part)
            with torch.no_grad():
                x_hat = self.inner.decode(z)
            yield part, z, x_hat

    def quality(self, x: Float[Tensor, "n d_in"]) -> dict[str, float]:
        """On held-out activations: `l0` (active latents a token), `fvu` (fraction of variance
        unexplained) and `alive` (latents that fire at all)."""
        from interp.probes.metrics import fvu

        chunks = [(z > 0, x_hat) for _, z, x_hat in self.reconstructions(x)]
        fires, x_hat = (torch.cat(column) for column in zip(*chunks, strict=True))
        return {
            "l0": float(fires.sum(1, dtype=torch.float64).mean()),
            "fvu": fvu(x, x_hat),
            "alive": int(fires.any(0).sum()),
        }


def bos_said(prepend_bos: Any) -> Bos:
    """What `prepend_bos` in an SAE's metadata asks for."""
    return "auto" if prepend_bos is None else ("always" if prepend_bos else "never")


class SplitActivations(NamedTuple):
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
        return cls(sae, reduce(Gram.merge, grams).solve(ridge, intercept))

    def __call__(self, x: Float[Tensor, "n d_in"]) -> SplitActivations:
        exact = x.double()
        x_hat = torch.cat([part.double() for _, _, part in self.sae.reconstructions(x)])
        linear = self.fit(exact)
        return SplitActivations(x_hat, linear, exact - x_hat - linear)


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
            f"{name} is a transcoder: it gives {about.hook_name_out or 'something else'}, not a "
            "reconstruction of what it reads; give an SAE"
        )
    if inner.cfg.normalize_activations in ("expected_average_only_in", "covariance_whitening"):
        raise UserError(
            f"{name} reads activations scaled beforehand ({inner.cfg.normalize_activations}) and "
            "does not store the scale: fold it into the weights with sae-lens first"
        )
    for key, values in inner.named_parameters():
        # a latent whose threshold is infinite is one that is switched off
        if values.isnan().any() or (values.isinf().any() and key != "threshold"):
            raise UserError(f"{name} is damaged: its {key} holds a NaN or an infinity; replace it")
    return Sae(inner, site_of_hook(hook))


_ADDED = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
_KINDS = {f"hook_{kind}": kind for kind in _ADDED}
_KINDS |= {"mlp.hook_post": "mlp_post", "attn.hook_z": "head_z"}


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
