"""Where a transformers model computes each site: module names, for native hooks and nnsight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..families import FAMILIES, ModelSpec
from ..site import Site


class View(NamedTuple):
    """A site's tensor as part of a module's: how to take it out and how to put it back."""

    take: Callable[[Tensor], Tensor]
    put: Callable[[Tensor, Tensor], Tensor]
    """(the module's tensor, the site's new one) -> the module's new tensor."""


class Location(NamedTuple):
    """The input or output of a module ('' is the model itself), or one item of a tuple."""

    module: str
    side: str = "out"
    item: int = 0
    view: View | None = None
    read_only: bool = False


def _split(x: Tensor, width: int) -> Tensor:
    """[..., n * width] -> [..., n, width]."""
    return x.reshape(*x.shape[:-1], -1, width)


def _values(spec: ModelSpec) -> View:
    """The values in what `Family.value` gives, by head; see `Family.value_rows`."""
    rows = FAMILIES[spec.model_type].value_rows
    width = spec.d_head if rows == "by head" else spec.n_heads * spec.d_head

    def put(x: Tensor, new: Tensor) -> Tensor:
        parts = _split(x, 3 * width)
        values = new.reshape(*parts.shape[:-1], width)
        return torch.cat([parts[..., : 2 * width], values], -1).flatten(-2)

    def take(x: Tensor) -> Tensor:
        return _split(_split(x, 3 * width)[..., 2 * width :].flatten(-2), spec.d_head)

    return _heads(spec) if rows == "all" else View(take, put)


def _heads(spec: ModelSpec) -> View:
    return View(lambda x: _split(x, spec.d_head), lambda _, new: new.flatten(-2))


def locations(spec: ModelSpec, model: Any) -> dict[Site, Location]:
    """Every site of a transformers model, in forward order, but for `resid_mid`.

    A module is named as its weight is (`FAMILIES`), attention and MLP as what holds the modules.
    `resid_mid` is no module's: it is resid_pre + attn_out, where attention comes before the MLP.
    `attn_pattern` is there only if the model computes patterns (attn_implementation="eager").
    """
    family = FAMILIES[spec.model_type]
    layer = family.up.partition("{}")[0] + "{}"
    attention, mlp = (name.rsplit(".", 2)[0] for name in (family.value, family.up))
    by_kind = {
        "resid_pre": Location(layer, "in"),
        "head_v": Location(family.value, view=_values(spec)),
        "attn_pattern": Location(attention, item=1, read_only=True),
        "head_z": Location(family.output, "in", view=_heads(spec)),
        "attn_out": Location(family.attn_post_norm or attention),
        "mlp_in": Location(mlp, "in"),
        "mlp_gate": Location(family.gate),
        "mlp_up": Location(family.up),
        "mlp_post": Location(family.down, "in"),
        "mlp_out": Location(family.mlp_post_norm or mlp),
        "resid_post": Location(layer),
    }
    if model.config._attn_implementation != "eager":
        del by_kind["attn_pattern"]
    of_site = {
        Site(kind, i): at._replace(module=at.module.format(i).removesuffix(".weight"))
        for i in range(spec.n_layers)
        for kind, at in by_kind.items()
        if at.module
    }
    of_site[Site("final_norm_in")] = Location(family.final_norm.removesuffix(".weight"), "in")
    head = model.get_output_embeddings()
    of_site[Site("logits")] = Location(next(n for n, m in model.named_modules() if m is head))
    return of_site
