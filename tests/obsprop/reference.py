"""The naive twin of a path's vector: autograd through the transformers model itself.

Hooks cut everything that is off the path: queries and keys (so patterns are constants), norm
scales, the stream beside each part, and all heads but the path's own.
"""

from contextlib import ExitStack

import torch
from torch import nn

from interp.model.backends.double import KeepingDouble
from interp.model.backends.locations import locations
from interp.model.site import Site


class _FrozenScale(nn.Module):
    """A norm whose scale is a constant to autograd."""

    def __init__(self, inner: nn.Module, centred: bool) -> None:
        super().__init__()
        self.inner, self.centred = inner, centred

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        plain = self.inner(x.detach())
        centre = (lambda v: v - v.mean(-1, keepdim=True)) if self.centred else (lambda v: v)
        apart = centre(x.detach())
        gain = self.inner.weight if self.centred else self.inner.gain
        eps = self.inner.eps
        scale = (apart.square().mean(-1, keepdim=True) + eps).sqrt()
        moved = centre(x - x.detach()) / scale * gain  # zero, but with the frozen derivative
        return plain + moved


def path_gradient(hf, spec, ids, path, positions, value):
    """d value / d (the stream that the path's first part reads, at its position).

    `hf` is changed (norms replaced, hooks left on): give it a copy.

    Args:
        value: last position's logits (before any soft cap) -> the observable.
    """
    at = locations(spec, hf)
    norms = _norm_modules(hf, spec)
    for name in norms.values():
        parent, _, child = name.rpartition(".")
        module = hf.get_submodule(name)
        setattr(hf.get_submodule(parent), child, _FrozenScale(module, spec.norm == "layer"))
    leaf: list[torch.Tensor] = []
    with ExitStack() as hooks:
        on = lambda handle: hooks.callback(handle.remove)  # noqa: E731
        for layer in range(spec.n_layers):
            _detach_patterns(hf, spec, layer, on)
            heads = [n.head for n in path if n.layer == layer and n.head is not None]
            z = hf.get_submodule(at[Site("head_z", layer)].module)
            on(z.register_forward_pre_hook(_only(heads, spec.d_head)))
            if not any(n.layer == layer and n.head is None for n in path):
                mlp = hf.get_submodule(at[Site("mlp_in", layer)].module)
                on(mlp.register_forward_hook(lambda m, i, out: out.detach()))
        for step, node in enumerate(path):
            norm = hf.get_submodule(norms[node.kind, node.layer])
            on(norm.register_forward_pre_hook(_enter(leaf, step == 0, positions[step])))
        _cut_stream(hf, spec, path, at, on)
        logits = []
        on(hf.get_output_embeddings().register_forward_hook(lambda m, i, o: logits.append(o)))
        with KeepingDouble():  # as Subject does for a model in float64
            hf(input_ids=ids[None], use_cache=False)
        (gradient,) = torch.autograd.grad(value(logits[0][0, positions[-1]]), leaf[0])
    return gradient


def _enter(leaf, first, position):
    """The path's first part gets a leaf that nothing else sees; the others what comes along it.

    Only the position on the path is let through.
    """

    def hook(module, inputs):
        x = inputs[0]
        here = torch.zeros(x.shape[1], 1, dtype=x.dtype)
        here[position] = 1.0
        if first:
            leaf.append(x[0, position].detach().clone().requires_grad_(True))
            rest = x.detach() - here * x.detach()
            return (rest + here * leaf[0],)
        carried = module._carried if hasattr(module, "_carried") else x
        return (carried.detach() + here * (carried - carried.detach()),)

    return hook


def _cut_stream(hf, spec, path, at, on):
    """A later part takes all that has come along the path: none of it goes on beside the part.

    At the point where the stream enters the part, the stream itself is detached and the norm is
    handed the attached one.
    """
    names = _norm_modules(hf, spec)
    for node in path[1:]:
        norm = hf.get_submodule(names[node.kind, node.layer])
        block = hf.get_submodule(at[Site("resid_pre", node.layer)].module)
        if node.kind == "attn" or spec.parallel:

            def before(module, args, kwargs, norm=norm):
                stream = args[0] if args else kwargs["hidden_states"]
                norm._carried = stream
                cut = stream.detach()
                return (
                    ((cut, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": cut})
                )

            on(block.register_forward_pre_hook(before, with_kwargs=True))
        else:
            # the MLP of a sequential block: the block's output is the detached stream plus its own
            mlp_out = hf.get_submodule(at[Site("mlp_out", node.layer)].module)
            seen = {}
            on(mlp_out.register_forward_hook(lambda m, i, o, seen=seen: seen.update(out=o)))

            def after(module, args, out, seen=seen):
                whole = out[0] if isinstance(out, tuple) else out
                own = seen["out"]
                cut = whole.detach() + spec.residual_scale * (own - own.detach())
                return (cut, *out[1:]) if isinstance(out, tuple) else cut

            on(block.register_forward_hook(after))


def _only(heads, width):
    def hook(module, inputs):
        z = inputs[0]
        kept = torch.zeros(z.shape[-1], dtype=z.dtype)
        for head in heads:
            kept[head * width : (head + 1) * width] = 1.0
        return (z.detach() + kept * (z - z.detach()),)

    return hook


def _detach_patterns(hf, spec, layer, on):
    family = spec.model_type
    if family == "gpt2":
        inner = hf.get_submodule(f"transformer.h.{layer}.attn.c_attn")
        width = 2 * spec.d_model
        on(inner.register_forward_hook(
            lambda m, i, o: torch.cat([o[..., :width].detach(), o[..., width:]], -1)
        ))  # fmt: skip
    elif family == "gpt_neox":
        inner = hf.get_submodule(f"gpt_neox.layers.{layer}.attention.query_key_value")

        def split(m, i, o):
            heads = o.unflatten(-1, (spec.n_heads, 3, spec.d_head))
            return torch.cat([heads[..., :2, :].detach(), heads[..., 2:, :]], -2).flatten(-3)

        on(inner.register_forward_hook(split))
    else:
        stem = (
            "transformer.h.{}.attn.attention"
            if family == "gpt_neo"
            else "model.layers.{}.self_attn"
        )
        for name in ("q_proj", "k_proj"):
            inner = hf.get_submodule(f"{stem.format(layer)}.{name}")
            on(inner.register_forward_hook(lambda m, i, o: o.detach()))


def _norm_modules(hf, spec):
    """(kind, layer) -> name of the module; post-norms and the final norm too."""
    family, found = spec.family, {("final", None): spec.family.final_norm}
    for i in range(spec.n_layers):
        for kind in ("attn", "mlp", "attn_post", "mlp_post"):
            if name := getattr(family, f"{kind}_norm"):
                found[kind, i] = f"{family.layer.format(i)}.{name}"
    return found
