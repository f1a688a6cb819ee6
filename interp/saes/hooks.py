"""Hooks of TransformerLens, by which SAEs say what they read, and sites of this workbench."""

from __future__ import annotations

import re

from ..errors import UserError
from ..model.site import Site

STREAM = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
"""The residual stream, and what is added to it."""
_KINDS = {f"hook_{kind}": kind for kind in STREAM}
_KINDS |= {"mlp.hook_post": "mlp_post", "attn.hook_z": "head_z", "mlp.hook_in": "mlp_in"}
_MODULES = {
    "": "resid_post",
    ".output": "resid_post",
    ".self_attn.o_proj.input": "head_z",
    ".pre_feedforward_layernorm.output": "mlp_in",
    ".post_feedforward_layernorm.output": "mlp_out",
}
"""Modules of transformers' layers, as Gemma Scope 2 and Qwen-Scope name them."""


def site_of_hook(hook: str, head: int | None = None) -> str:
    """'blocks.6.hook_resid_post' -> '6.resid_post'; '' for a hook that names no site here.

    Args:
        head: which head of it.

    Raises:
        UserError: a head of a hook that has none.
    """
    named = re.fullmatch(r"blocks\.([0-9]+)\.(.+)", hook)
    if named is None or named[2] not in _KINDS:
        return ""
    return str(Site(_KINDS[named[2]], int(named[1]), head))


def site_of_module(module: str) -> str:
    """'model.layers.6.output' -> '6.resid_post'; '' for a module that names no site here."""
    named = re.fullmatch(r"model\.layers\.([0-9]+)(.*)", module)
    if named is None or named[2] not in _MODULES:
        return ""
    return str(Site(_MODULES[named[2]], int(named[1])))


def hook_of_site(site: str) -> str:
    """'6.resid_post' -> 'blocks.6.hook_resid_post', the name to store in an SAE's metadata; of a
    head that of all heads.

    Raises:
        UserError: sae-lens has none for it.
    """
    parsed = Site.parse(site)
    names = {ours: theirs for theirs, ours in _KINDS.items()}
    if parsed.kind not in names:
        raise UserError(f"sae-lens has no hook for the site '{site}'")
    return f"blocks.{parsed.layer}.{names[parsed.kind]}"
