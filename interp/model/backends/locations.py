"""Where a transformers model computes each site: module names, for native hooks and nnsight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..families import ModelSpec
from ..site import LAYER_KINDS, Site


@dataclass(frozen=True)
class View:
    """A site's tensor as part of a module's: how to take it out and how to put it back."""

    take: Callable[[Tensor], Tensor]
    put: Callable[[Tensor, Tensor], Tensor]
    """(the module's tensor, the site's new one) -> the module's new tensor."""


@dataclass(frozen=True)
class Location:
    """The input or output of a module ('' is the model itself), or one item of a tuple."""

    module: str
    side: str = "out"
    item: int = 0
    view: View | None = None
    read_only: bool = False


def _split(x: Tensor, width: int) -> Tensor:
    """[..., n * width] -> [..., n, width]."""
    return x.reshape(*x.shape[:-1], -1, width)


def _heads(d_head: int) -> View:
    return View(lambda x: _split(x, d_head), lambda _, new: new.flatten(-2))


def _gpt2_values(d_model: int, d_head: int) -> View:
    """c_attn computes queries, keys and values side by side."""
    return View(
        lambda x: _split(x[..., 2 * d_model :], d_head),
        lambda x, new: torch.cat([x[..., : 2 * d_model], new.flatten(-2)], -1),
    )


def _neox_values(d_head: int) -> View:
    """query_key_value interleaves them head by head."""

    def put(x: Tensor, new: Tensor) -> Tensor:
        heads = _split(x, 3 * d_head)
        return torch.cat([heads[..., : 2 * d_head], new], -1).flatten(-2)

    return View(lambda x: _split(x, 3 * d_head)[..., 2 * d_head :], put)


def _llama(spec: ModelSpec) -> dict[str, Location]:
    layer, heads = "model.layers.{}", _heads(spec.d_head)
    post_norms = spec.model_type in ("gemma2", "gemma3_text")
    attn_out = "post_attention_layernorm" if post_norms else "self_attn"
    mlp_out = "post_feedforward_layernorm" if post_norms else "mlp"
    return {
        "resid_pre": Location(layer, "in"),
        "head_v": Location(f"{layer}.self_attn.v_proj", view=heads),
        "attn_pattern": Location(f"{layer}.self_attn", item=1, read_only=True),
        "head_z": Location(f"{layer}.self_attn.o_proj", "in", view=heads),
        "attn_out": Location(f"{layer}.{attn_out}"),
        "mlp_in": Location(f"{layer}.mlp", "in"),
        "mlp_gate": Location(f"{layer}.mlp.gate_proj"),
        "mlp_up": Location(f"{layer}.mlp.up_proj"),
        "mlp_post": Location(f"{layer}.mlp.down_proj", "in"),
        "mlp_out": Location(f"{layer}.{mlp_out}"),
        "resid_post": Location(layer),
        "final_norm_in": Location("model.norm", "in"),
    }


def _gpt2(spec: ModelSpec) -> dict[str, Location]:
    layer, heads = "transformer.h.{}", _heads(spec.d_head)
    neo = spec.model_type == "gpt_neo"
    inner = f"{layer}.attn.attention" if neo else f"{layer}.attn"
    values = (
        Location(f"{inner}.v_proj", view=heads)
        if neo
        else Location(f"{inner}.c_attn", view=_gpt2_values(spec.d_model, spec.d_head))
    )
    return {
        "resid_pre": Location(layer, "in"),
        "head_v": values,
        "attn_pattern": Location(f"{layer}.attn", item=1, read_only=True),
        "head_z": Location(f"{inner}.{'out_proj' if neo else 'c_proj'}", "in", view=heads),
        "attn_out": Location(f"{layer}.attn"),
        "mlp_in": Location(f"{layer}.mlp", "in"),
        "mlp_up": Location(f"{layer}.mlp.c_fc"),
        "mlp_post": Location(f"{layer}.mlp.c_proj", "in"),
        "mlp_out": Location(f"{layer}.mlp"),
        "resid_post": Location(layer),
        "final_norm_in": Location("transformer.ln_f", "in"),
    }


def _neox(spec: ModelSpec) -> dict[str, Location]:
    layer = "gpt_neox.layers.{}"
    return {
        "resid_pre": Location(layer, "in"),
        "head_v": Location(f"{layer}.attention.query_key_value", view=_neox_values(spec.d_head)),
        "attn_pattern": Location(f"{layer}.attention", item=1, read_only=True),
        "head_z": Location(f"{layer}.attention.dense", "in", view=_heads(spec.d_head)),
        "attn_out": Location(f"{layer}.attention"),
        "mlp_in": Location(f"{layer}.mlp", "in"),
        "mlp_up": Location(f"{layer}.mlp.dense_h_to_4h"),
        "mlp_post": Location(f"{layer}.mlp.dense_4h_to_h", "in"),
        "mlp_out": Location(f"{layer}.mlp"),
        "resid_post": Location(layer),
        "final_norm_in": Location("gpt_neox.final_layer_norm", "in"),
    }


_BY_FAMILY = {"gpt2": _gpt2, "gpt_neo": _gpt2, "gpt_neox": _neox}


def locations(spec: ModelSpec, model: Any) -> dict[Site, Location]:
    """Every site of a transformers model, in forward order, but for `resid_mid`.

    `resid_mid` is no module's: it is resid_pre + attn_out, where attention comes before the MLP.
    `attn_pattern` is there only if the model computes patterns (attn_implementation="eager").
    """
    by_kind = _BY_FAMILY.get(spec.model_type, _llama)(spec)
    if model.config._attn_implementation != "eager":
        del by_kind["attn_pattern"]
    of_site = {}
    for layer in range(spec.n_layers):
        for kind in LAYER_KINDS:
            if kind in by_kind:
                at = by_kind[kind]
                module = at.module.format(layer)
                of_site[Site(kind, layer)] = Location(
                    module, at.side, at.item, at.view, at.read_only
                )
    of_site[Site("final_norm_in")] = by_kind["final_norm_in"]
    head = model.get_output_embeddings()
    of_site[Site("logits")] = Location(next(n for n, m in model.named_modules() if m is head))
    return of_site


def has_resid_mid(config: Any) -> bool:
    """Whether attention is added to the stream before the MLP reads it (parallel blocks do not)."""
    return not getattr(config, "use_parallel_residual", False)
