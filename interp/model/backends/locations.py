"""Where a transformers model computes each site: module names, for native hooks and nnsight."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from torch import Tensor

from ..families import ModelSpec, Names, Part
from ..site import LAYER_KINDS, Site


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
    flat: bool = False
    """Whether the module gets all rows as one, [batch * pos, d]."""


def part_view(part: Part) -> View | None:
    """A part of a projection's outputs; None where it is all of them."""
    return View(part.take, part.put) if part.of > 1 else None


def scaled(factor: float) -> View | None:
    """What a module gives, times a factor."""
    return View(lambda x: x * factor, lambda _, new: new / factor) if factor != 1 else None


def _heads(spec: ModelSpec) -> View:
    def take(x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], -1, spec.d_head)

    return View(take, lambda _, new: new.flatten(-2))


def _values(spec: ModelSpec) -> View:
    """The values in what `Family.value` gives, by head; see `Family.value_rows`."""
    n, d_head = spec.n_kv_heads, spec.d_head

    def take(x: Tensor) -> Tensor:
        mine = x[..., -n * d_head :] if spec.family.value_rows == "last" else x
        return mine.reshape(*mine.shape[:-1], n, -1)[..., -d_head:]

    def put(x: Tensor, new: Tensor) -> Tensor:
        whole = x.clone()
        take(whole).copy_(new)  # a view: of rows that lie together, none is copied
        return whole

    return View(take, put)


def locations(spec: ModelSpec, model: Any) -> dict[Site, Location]:
    """Every site of a transformers model, in forward order, but for `resid_mid`.

    A module is named as its weight is in the family's entry. A layer has the sites whose modules it
    has: layers of other kinds among them (linear attention, experts) have fewer. `resid_mid` is no
    module's: it is resid_pre + attn_out, where attention comes before the MLP. `attn_pattern` is
    there only if the model computes patterns (attn_implementation="eager").
    """
    names = Names(spec.family, model.state_dict().keys())
    modules = dict(model.named_modules())
    found = {}
    for layer in range(spec.n_layers):
        for kind, at in _in_layer(spec, model, names, layer, modules).items():
            if at.module and at.module in modules:
                found[Site(kind, layer)] = at
    found[Site("final_norm_in")] = Location(names.final_norm, "in")
    head = model.get_output_embeddings()
    found[Site("logits")] = Location(next(n for n, m in modules.items() if m is head))
    return found


def _in_layer(
    spec: ModelSpec, model: Any, names: Names, layer: int, modules: Collection[str]
) -> dict[str, Location]:
    """By kind, where the sites of a layer are if the layer has their modules."""
    family, scale = spec.family, scaled(spec.residual_scale)

    def part(name: str) -> str:
        return names.part(layer, name) if name else ""

    attention = next((part(a) for a in family.attention if part(a) in modules), "")
    whole = names.own(family.layer.format(layer))
    places = {
        "resid_pre": Location(whole, "in"),
        "head_v": Location(part(family.value), view=_values(spec)),
        "attn_pattern": Location(attention, item=1, read_only=True),
        "head_z": Location(part(family.output), "in", view=_heads(spec)),
        "attn_out": Location(part(family.attn_post_norm or family.attn_out) or attention),
        "mlp_in": Location(part(family.mlp or family.up.name), "in"),
        "mlp_up": Location(part(family.up.name), view=part_view(family.up)),
        "mlp_post": Location(part(family.down), "in"),
        "mlp_out": Location(part(family.mlp_post_norm or family.mlp_out or family.mlp)),
        "resid_post": Location(whole),
    }
    if family.gate:
        places["mlp_gate"] = Location(part(family.gate.name), view=part_view(family.gate))
    if model.config._attn_implementation != "eager" or part(family.value) not in modules:
        del places["attn_pattern"]
    for kind in ("attn_out", "mlp_out"):
        places[kind] = places[kind]._replace(view=scale)
    if family.flat_mlp:
        for kind in ("mlp_in", "mlp_up", "mlp_post", "mlp_out"):
            places[kind] = places[kind]._replace(flat=True)
    return dict(sorted(places.items(), key=lambda item: LAYER_KINDS.index(item[0])))
