"""Edits by an SAE's latents: steer, ablate, clamp, splice.

With z = encode(x), d_j the row that latent j writes and x_hat = decode(z):
    steer_latent   x + a d_j              `a` in the units of the latent's own activation
    ablate_latent  x - z_j d_j
    clamp_latent   x + (v - z_j) d_j      the latent is then worth v; all else is kept
    splice         x_hat, or with the error added back x_hat + (x - x_hat)

z is of what reaches the site, earlier edits in scope included. Positions that the SAE was not
trained on keep their values: BOS, the special tokens or those that it names (`Sae.no_data`), and
the first token of each text, which models attend to whatever it is.

An SAE of centred activations writes into the stream, whose mean over d_model it leaves as it is:
the norms behind take that away. What one writes that normalises its inputs is multiplied by the
input's own scale, as its decoder does. One that was trained on some positions only is refused, as
an edit is one for all; so are transcoders and SAEs of another SAE's errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import UserError
from ..model.edits import Edit, Where
from ..model.prompting import Prompting
from ..model.site import Site
from .sae import CHUNK, Sae

CELLS = 1 << 26
"""Latents times positions that are held at once: 256 MB."""
FIRST = 1
"""Positions at the beginning of a text that no edit by latents touches."""

Latents = int | Sequence[int]
Amount = float | Float[Tensor, " batch"]
"""One for all texts, or one for each."""


def steer_latent(
    sae: Sae, latents: Latents, amount: Amount, prompting: Prompting, where: Where = "all"
) -> Edit:
    """Add `amount` times what a latent writes for one unit of its activation; several are summed.

    Args:
        prompting: the subject's: which of its tokens are special.

    Raises:
        UserError: a latent that the SAE lacks, or an SAE that cannot be acted by (see above).
    """
    which = _checked(sae, latents)
    rows = sae.W_dec[which]

    def change(x: Tensor, amounts: Tensor) -> Tensor:
        return x + _written(sae, x, which, rows, amounts[:, None].expand(-1, len(which)))

    return _edit(sae, change, amount, prompting, where, f"steer {_named(which)} by {_said(amount)}")


def ablate_latent(sae: Sae, latents: Latents, prompting: Prompting, where: Where = "all") -> Edit:
    """Take away what a latent contributes, or several; arguments and errors as `steer_latent`."""
    return clamp_latent(sae, latents, 0.0, prompting, where)


def clamp_latent(
    sae: Sae, latents: Latents, value: Amount, prompting: Prompting, where: Where = "all"
) -> Edit:
    """Set a latent's activation, or those of several; arguments and errors as `steer_latent`."""
    which = _checked(sae, latents)
    rows = sae.W_dec[which]

    def change(x: Tensor, amounts: Tensor) -> Tensor:
        more = amounts[:, None] - _encoded(sae, x)[:, which]
        return x + _written(sae, x, which, rows, more)

    about = f"clamp {_named(which)} to {_said(value)}"
    return _edit(sae, change, value, prompting, where, about)


def splice(
    sae: Sae,
    prompting: Prompting,
    error: bool = False,
    held: Mapping[int, float] | None = None,
    where: Where = "all",
) -> Edit:
    """Put the SAE's reconstruction in the place of the activations.

    Args:
        error: add x - x_hat back: the activations as they were, but for rounding and `held`.
        held: latents and the values that they are set to before decoding.

    Raises:
        UserError: as `steer_latent`.
    """
    held = held or {}
    which = _checked(sae, list(held)) if held else []

    def change(x: Tensor, _: Tensor) -> Tensor:
        z = _encoded(sae, x)
        x_hat = _decoded(sae, x, z)
        wide = x.flatten(1).to(torch.promote_types(x.dtype, x_hat.dtype))
        read = sae.read(wide)
        # without the error, what remains is a mean that a centred SAE does not see
        rest = wide - x_hat if error else wide - read
        if which:
            z[:, which] = torch.tensor([held[j] for j in which]).to(z)
            x_hat = _decoded(sae, x, z)
        return (x_hat + rest).view(x.shape).to(x)

    about = f"splice {'with' if error else 'without'} the error"
    if held:
        about += f", {_named(which)} held"
    return _edit(sae, change, 0.0, prompting, where, about)


def check_acts(sae: Sae, name: str = "this SAE") -> None:
    """Raise UserError for an SAE by whose latents activations cannot be edited."""
    sae.check_reconstructs(name)
    if not sae.site:
        raise UserError(f"{name} does not say which site it reads: its latents act nowhere")
    if sae.reads:
        raise UserError(f"{name} is an SAE of the {sae.reads}, not of activations: give another")
    if sae.sliced:
        raise UserError(
            f"{name} was trained on some positions of a text only (seqpos_slice), and an edit does "
            "not know them: give another"
        )


def _checked(sae: Sae, latents: Latents) -> list[int]:
    which = [latents] if isinstance(latents, int) else list(latents)
    if not which:
        raise UserError("name at least one latent")
    check_latents(sae, which)
    return which


def check_latents(sae: Sae, which: Sequence[int]) -> None:
    """Raise UserError for latents that the SAE lacks, or one that is named twice."""
    if missing := [j for j in which if not 0 <= j < sae.d_sae]:
        raise UserError(f"this SAE has no latent {missing[0]}: it has 0..{sae.d_sae - 1}")
    if len(set(which)) < len(which):
        raise UserError("two of the latents are the same: name each once")


def _edit(
    sae: Sae,
    change: Callable[[Tensor, Tensor], Tensor],
    amount: Amount,
    prompting: Prompting,
    where: Where,
    about: str,
) -> Edit:
    """`change` gets the activations of some positions [n, ...], and the amount at each [n]."""
    check_acts(sae)
    site = Site.parse(sae.site)
    size = max(1, min(CHUNK, CELLS // sae.d_sae))

    @torch.no_grad()
    def whole(h: Tensor) -> Tensor:
        amounts = torch.as_tensor(amount, dtype=sae.inner.W_dec.dtype, device=h.device)
        if amounts.ndim and amounts.shape != h.shape[:1]:
            raise UserError(f"{len(amounts)} values do not fit {len(h)} texts")
        each = amounts.view(-1, 1).expand(*h.shape[:2]).flatten()
        parts = zip(torch.split(h.flatten(0, 1), size), torch.split(each, size), strict=True)
        return torch.cat([change(*part) for part in parts]).view(h.shape)

    return Edit(site, whole, where, about, sae.no_data(prompting), FIRST)


def _encoded(sae: Sae, x: Tensor) -> Tensor:
    """Latents [n, d_sae] of x [n, ...]."""
    return sae.inner.encode(sae.read(x.to(sae.inner.W_dec.dtype))).to_dense()


def _decoded(sae: Sae, x: Tensor, z: Tensor) -> Tensor:
    """What latents [n, d_sae] give in the place of x: [n, d_in]."""
    if sae.normalises:
        _encoded(sae, x)  # sae-lens keeps the scale of its last input until it decodes once
    return sae.inner.decode(z)


def _written(sae: Sae, x: Tensor, which: list[int], rows: Tensor, more: Tensor) -> Tensor:
    """What `more` [n, latents] of some latents adds to x [n, ...], in x's shape and dtype."""
    if sae.normalises:
        z = torch.zeros(len(x), sae.d_sae, dtype=more.dtype, device=more.device)
        nothing = _decoded(sae, x, z)
        z[:, which] = more
        added = _decoded(sae, x, z) - nothing
    else:
        if x[0].numel() != sae.d_in:
            sae.read(x)  # which says what does not fit
        added = more @ rows.to(more.device)
    return added.view(x.shape).to(x)


def _named(which: Sequence[int]) -> str:
    return f"latent{'s' * (len(which) > 1)} {', '.join(map(str, which))}"


def _said(amount: Amount) -> str:
    return "a value for each text" if isinstance(amount, Tensor) else f"{amount:g}"
