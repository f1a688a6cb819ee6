"""sae-lens objects taken in: judged by what they say and hold, and their sites found."""

from __future__ import annotations

from copy import copy
from typing import Any

from ..errors import UserError
from .config import CENTRED, reads_centred
from .hooks import site_of_hook, site_of_module
from .sae import Sae, SaeLens


def read_site(about: Any) -> str:
    """The site that an SAE's metadata names, "" for none or one that is not known here."""
    hook, module = str(about.hook_name or ""), str(about.hf_hook_name or "")
    return site_of_hook(hook, about.hook_head_index) or site_of_module(module)


def written_site(about: Any) -> str:
    """The site that a transcoder's metadata names as its output, or ""."""
    hook, module = str(about.hook_name_out or ""), str(about.hf_hook_name_out or "")
    return site_of_hook(hook, about.hook_head_index_out) or site_of_module(module)


def wrap(inner: SaeLens, name: str = "this SAE", told: str = "") -> Sae:
    """The adapter around a sae-lens object, its site read from the hook name it carries. Its heads
    come side by side; the object that is given stays as it is.

    Args:
        told: what says its model and site, if not its own files.

    Raises:
        UserError: an SAE that says it gives something else than it reads, one that reads other
            tokens too, a number of active latents that cannot be, weights that are not finite, or
            activations that are not a model's own (`reads_centred`) or were scaled by numbers it
            does not hold.
    """
    about, config = inner.cfg.metadata, inner.cfg
    hook, transcodes = str(about.hook_name or ""), "transcoder" in config.architecture()
    if not transcodes and (about.hook_name_out or hook) != hook:
        raise UserError(
            f"{name} is a transcoder: it gives {about.hook_name_out}, not a reconstruction of what "
            f"it reads, but its architecture is {config.architecture()}: give another one"
        )
    if config.architecture() == "temporal":
        raise UserError(f"{name} is a temporal SAE, which reads earlier tokens too: give another")
    if config.normalize_activations in ("expected_average_only_in", "covariance_whitening"):
        raise UserError(
            f"{name} reads activations scaled beforehand ({config.normalize_activations}) and "
            "does not store the scale: fold it into the weights with sae-lens first"
        )
    k = getattr(config, "k", 1)
    if type(k) is not int or not 1 <= k <= config.d_sae:
        raise UserError(
            f"{name} is damaged: it keeps the largest {k} of {config.d_sae} latents; replace it"
        )
    _check_told(about, name)
    for key, values in inner.named_parameters():
        # a latent whose threshold is infinite is one that is switched off
        if values.isnan().any() or (values.isinf().any() and key != "threshold"):
            raise UserError(f"{name} is damaged: its {key} holds a NaN or an infinity; replace it")
    site = read_site(about)
    centred = reads_centred(dict(about.items()), site, name)
    out_site = written_site(about) if transcodes else site
    if transcodes and (centred or reads_centred(dict(about.items()), out_site, name)):
        raise UserError(
            f"{name} is a transcoder of a model loaded with {CENTRED}, whose stream has no mean: "
            "give another one"
        )
    if getattr(config, "reshape_activations", "none") == "hook_z":
        inner = copy(inner)
        inner.turn_off_forward_pass_hook_z_reshaping()
    return Sae(inner, site, centred, out_site, told)


def _check_told(about: Any, name: str) -> None:
    """Raise UserError for metadata on tokens and positions of another form than sae-lens'."""
    ends, excluded = about.seqpos_slice, about.exclude_special_tokens
    try:
        range(1)[slice(*(ends or (None,)))]
        list(map(int, () if isinstance(excluded, bool) else excluded or ()))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{name} is damaged: its seqpos_slice {ends!r} or exclude_special_tokens {excluded!r} "
            "is not what sae-lens writes; replace it"
        ) from error
