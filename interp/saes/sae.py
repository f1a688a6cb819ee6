"""Sparse autoencoders as the workbench sees them: encode, decode, and two sets of directions.

    z = encode(x) [n, d_sae]       x_hat = decode(z) = z W_dec + b_dec

A transcoder reads at one site and writes at another, so what it gives is no reconstruction of what
it reads: y_hat = outputs(x) = z W_dec + b_dec, plus x W_skip where it has a skip connection.

An adapter over sae-lens objects of any architecture, so that whatever has been trained or published
for it can be used. `open.py` opens them; nothing here imports sae-lens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import UserError
from ..model.prompting import Bos, Prompting
from .partner import check_centred, check_model

CHUNK = 8192
"""Activations encoded at once."""


class SaeLens(Protocol):
    """What is asked of a sae-lens SAE."""

    cfg: Any
    W_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor

    def __call__(self, x: Tensor) -> Tensor: ...

    def encode(self, x: Tensor) -> Tensor: ...

    def decode(self, feature_acts: Tensor) -> Tensor: ...

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]: ...

    def save_model(self, path: Path) -> Any: ...

    def turn_off_forward_pass_hook_z_reshaping(self) -> None:
        """Asked of those alone whose config reshapes activations."""


@dataclass(frozen=True)
class Sae:
    """One autoencoder and the site it was trained on."""

    inner: SaeLens
    site: str
    """A site in this workbench's names, "6.resid_post"; "" if its hook is not known here."""
    centred: bool = False
    """Whether it reads activations without their mean over d_model, as TransformerLens gives them
    with centred weights: the same model, where every norm takes the mean away."""
    out_site: str = ""
    """Where it writes: `site`, but for a transcoder; "" if that hook is not known here."""
    told: str = ""
    """What says its model and site, if not its own files: the names of folders, who opened it."""

    @property
    def transcodes(self) -> bool:
        """Whether it gives another activation than it reads."""
        return "transcoder" in self.inner.cfg.architecture()

    @property
    def W_enc(self) -> Float[Tensor, "d_in d_sae"]:
        """Column j is what latent j reads."""
        weights, lengths = self.inner.W_enc.detach(), self._lengths
        return weights if lengths is None else weights * lengths

    @property
    def W_dec(self) -> Float[Tensor, "d_sae d_out"]:
        """Row j is what latent j writes."""
        weights, lengths = self.inner.W_dec.detach(), self._lengths
        return weights if lengths is None else weights / lengths[:, None]

    @property
    def _lengths(self) -> Tensor | None:
        """Of the stored decoder's rows [d_sae], where sae-lens takes them for unit vectors and
        gives the encoder their lengths; None elsewhere."""
        if not getattr(self.inner.cfg, "rescale_acts_by_decoder_norm", False):
            return None
        lengths: Tensor = self.inner.W_dec.detach().norm(dim=1)
        return lengths

    @property
    def b_dec(self) -> Float[Tensor, " d_out"]:
        """What it gives where no latent is active."""
        tied = self.inner.cfg.architecture() == "matching_pursuit"
        unused = tied and not self.inner.cfg.apply_b_dec_to_input
        return self.inner.b_dec.detach() * (not unused)

    @property
    def d_in(self) -> int:
        return int(self.inner.cfg.d_in)

    @property
    def d_out(self) -> int:
        """How many numbers it gives: d_in, but for a transcoder."""
        return int(getattr(self.inner.cfg, "d_out", self.d_in))

    @property
    def d_sae(self) -> int:
        return int(self.inner.cfg.d_sae)

    @property
    def model(self) -> str:
        """Whose activations it was trained on, as it says itself, `name@revision` for those of a
        checkpoint; "" if it does not."""
        metadata = self.inner.cfg.metadata
        loading = metadata.model_from_pretrained_kwargs or {}
        keys = ("revision", "checkpoint_label", "checkpoint_value", "checkpoint_index")
        points = [loading[key] for key in keys if loading.get(key) is not None]
        name = str(metadata.model_name or "")
        return f"{name}@{points[0]}" if name and points else name

    @property
    def hook(self) -> str:
        """The hook that it was trained at, in its own words; "" if it does not say."""
        return str(self.inner.cfg.metadata.hook_name or "")

    @property
    def reads(self) -> str:
        """What it was trained on, if that is not the activations of its site: "linear error"."""
        return str(self.inner.cfg.metadata.reads or "")

    def check_model(self, model: str, name: str = "this SAE", anyway: bool = False) -> bool:
        """Whether it names this model, or none.

        Args:
            anyway: False for another model instead of the error.

        Raises:
            UserError: another model, or one that has no centred stream for an SAE of one.
        """
        if self.centred:
            check_centred(name, model)
        return check_model(name, self.model, model, anyway)

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
    def sliced(self) -> bool:
        """Whether it was trained on some positions of a text only."""
        return len(self.positions(1 << 16)) < 1 << 16

    def positions(self, length: int) -> range:
        """The positions of a text of some length that it was trained on (`seqpos_slice`)."""
        return range(length)[slice(*(self.inner.cfg.metadata.seqpos_slice or (None,)))]

    @property
    def normalises(self) -> str:
        """How each input is normalised, "" if it is not. Latents of a normalised input lack its
        scale."""
        how = str(self.inner.cfg.normalize_activations)
        return "" if how == "none" else how

    def read(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d_in"]:
        """Activations of its site as it reads them: heads [..., heads, d_head] side by side, and
        without the mean if it is `centred`. What `x - SAE(x)` means by x.

        Raises:
            UserError: they have another width.
        """
        heads = x.shape[-2:].numel() if self.site.endswith(".head_z") and x.ndim > 2 else 0
        if self.d_in not in (x.shape[-1], heads):
            raise UserError(
                f"this SAE reads {self.d_in} numbers, these activations have {heads or x.shape[-1]}"
            )
        flat = x if x.shape[-1] == self.d_in else x.flatten(-2)
        return flat - flat.mean(-1, keepdim=True) if self.centred else flat

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d_sae"]:
        """Latent activations of `read(x)`, dense, chunk by chunk."""
        read = self.read(x)
        chunks = torch.split(read.reshape(-1, self.d_in), CHUNK)
        z = torch.cat([self.inner.encode(part).to_dense() for part in chunks])
        return z.view(*read.shape[:-1], self.d_sae)

    @torch.no_grad()
    def decode(self, z: Float[Tensor, "... d_sae"]) -> Float[Tensor, "... d_out"]:
        """The reconstruction of `read(x)` that latents give, chunk by chunk. Of a transcoder, what
        they add to its output: all of it without a skip connection.

        Raises:
            UserError: latents of normalised inputs, whose scale is not in them.
        """
        if self.normalises and not self.transcodes:
            raise UserError(
                f"this SAE normalises its input ({self.normalises}), so latents alone do not give "
                "x back: use Sae.reconstructions, or another SAE"
            )
        chunks = torch.split(z.reshape(-1, self.d_sae), CHUNK)
        x_hat = torch.cat([self.inner.decode(part) for part in chunks])
        return x_hat.view(*z.shape[:-1], self.d_out)

    @torch.no_grad()
    def outputs(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d_out"]:
        """What it gives for activations of its site: the reconstruction of `read(x)`, or a
        transcoder's activations at `out_site`, its skip connection included."""
        read = self.read(x)
        parts = [self.inner(part) for part in torch.split(read.reshape(-1, self.d_in), CHUNK)]
        return torch.cat(parts).view(*read.shape[:-1], self.d_out)

    def check_reconstructs(self, name: str = "this SAE") -> None:
        """Raise UserError for a transcoder."""
        if self.transcodes:
            where = self.inner.cfg.metadata.hook_name_out or self.out_site or "something else"
            raise UserError(
                f"{name} is a transcoder: it gives {where}, not a reconstruction of what it reads; "
                "give an SAE"
            )

    def reconstructions(
        self, x: Float[Tensor, "n ..."]
    ) -> Iterator[tuple[Float[Tensor, "m d_in"], Tensor, Tensor]]:
        """(read(x), z, x_hat) in chunks, for sums over more activations than fit as latents.

        SAEs that normalise can be used only so: sae-lens keeps the scale of its last input.

        Raises:
            UserError: a transcoder.
        """
        self.check_reconstructs()
        for part in torch.split(x, CHUNK):
            read = self.read(part)
            with torch.no_grad():
                z = self.inner.encode(read).to_dense()
                x_hat = self.inner.decode(z)
            yield read, z, x_hat

    def save(self, folder: Path) -> None:
        """Write it as sae-lens does, with the model and site by which it was opened.

        Raises:
            UserError: the folder cannot be written.
        """
        try:
            self.inner.save_model(folder)
        except OSError as error:
            raise UserError(f"cannot write {folder}: {error.strerror or error}") from error

    def quality(self, x: Float[Tensor, "n ..."]) -> dict[str, float]:
        """On held-out activations: `l0` (active latents a token), `fvu` (fraction of variance
        unexplained) and `alive` (latents that fire at all)."""
        from interp.probes.metrics import fvu

        chunks = [(read, z != 0, x_hat) for read, z, x_hat in self.reconstructions(x)]
        read, fires, x_hat = (torch.cat(column) for column in zip(*chunks, strict=True))
        return {
            "l0": float(fires.sum(1, dtype=torch.float64).mean()),
            "fvu": fvu(read, x_hat),
            "alive": int(fires.any(0).sum()),
        }


def bos_said(prepend_bos: Any) -> Bos:
    """What `prepend_bos` in an SAE's metadata asks for."""
    return "auto" if prepend_bos is None else ("always" if prepend_bos else "never")
