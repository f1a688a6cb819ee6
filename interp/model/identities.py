"""What must hold between a model's sites and its weights, checked as it is opened.

On a probe of two rows, the shorter padded on the left, with the family's canonical weights W:

    attn_norm(resid_pre) W_V^T + b_V = head_v           attn_pattern head_v = head_z
    head_z of the first token = a multiple of its head_v
    scale * attn_post_norm(head_z W_O + b_O) = attn_out
    mlp_norm(resid_mid) = mlp_in                        (of resid_pre in a parallel layer)
    mlp_in W_up^T + b = mlp_up, so mlp_gate             act(mlp_gate) * mlp_up = mlp_post
    scale * mlp_post_norm(mlp_post W_down + b) = mlp_out
    resid_mid + mlp_out = resid_post                    resid_post = the next resid_pre
    final_norm(final_norm_in) W_U^T + b_U = logits

A difference is relative: at the worst position, the length of what differs over the length of what
is right. Weights are read of the first and last layer and of one layer of every other kind.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ..errors import UserError
from .families import ModelSpec
from .families.spec import BOTH_WAYS
from .loaded import LoadedWeights
from .site import Site

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""The largest relative difference that rounding makes of an identity, by the model's dtype."""
PROBE = 16
"""Tokens of the probe's longer row."""
READOUT = 512
"""Tokens whose logits are checked."""
Values = dict[Site, Tensor]


class Identity(NamedTuple):
    """An equation between sites, and what stands on its sides [batch, pos, ...]."""

    equation: str
    kinds: tuple[str, ...]
    """The sites that are wrong if it does not hold."""
    left: Tensor
    right: Tensor

    def error(self, real: Bool[Tensor, "batch pos"]) -> float:
        """The relative difference at the worst of the real positions."""
        left, right = (x.double()[real].flatten(1) for x in (self.left, self.right))
        length = right.norm(dim=1)
        floor = max(1e-6 * float(length.max()), torch.finfo(torch.float32).tiny)
        return float(((left - right).norm(dim=1) / length.clamp_min(floor)).max())


def identities(values: Values, weights: LoadedWeights) -> Iterator[Identity]:
    """Every equation whose sites are there.

    Args:
        values: all sites of a model but patterns of layers that are not looked at, on the CPU.
    """
    for layer in probed(values.keys(), weights.spec):
        own = {site.kind: x for site, x in values.items() if site.layer == layer}
        yield from _attention(own, weights, layer)
        yield from _mlp(own, weights, layer)
        yield from _stream(own, weights.spec)
    yield from _chain(values, weights.spec)
    if {Site("final_norm_in"), Site("logits")} <= values.keys():
        logits = values[Site("logits")]
        tokens = torch.arange(0, logits.shape[-1], max(logits.shape[-1] // READOUT, 1))
        read = weights.before_unembedding(values[Site("final_norm_in")])
        left = read @ weights.readout(tokens).double().T + weights.b_U()[tokens]
        equation = "final_norm(final_norm_in) W_U^T = logits"
        yield Identity(equation, ("final_norm_in", "logits"), left, logits[..., tokens])


def probed(sites: Collection[Site], spec: ModelSpec) -> list[int]:
    """The first and last layer, and the first of every other kind: with other sites."""
    kinds: dict[frozenset[str], int] = {}
    for layer in range(spec.n_layers):
        own = frozenset(site.kind for site in sites if site.layer == layer)
        kinds.setdefault(own - {"attn_pattern"}, layer)
    return sorted({*kinds.values(), spec.n_layers - 1})


def _attention(own: dict[str, Tensor], weights: LoadedWeights, layer: int) -> Iterator[Identity]:
    spec = weights.spec
    if {"resid_pre", "head_v"} <= own.keys() and not spec.family.no_heads:
        read = weights.normed("attn", layer, own["resid_pre"]).to(own["resid_pre"])
        values = torch.einsum("bpd,hkd->bphk", read, weights.W_V(layer)) + weights.b_V(layer)
        yield Identity("norm(resid_pre) W_V^T = head_v", ("head_v",), values, own["head_v"])
    if {"head_v", "head_z"} <= own.keys() and not spec.family.gated_heads:
        shared = own["head_v"].repeat_interleave(spec.n_heads // spec.n_kv_heads, dim=2)
        yield _first_token(shared, own["head_z"])
        if "attn_pattern" in own:
            z = torch.einsum("bhqp,bphk->bqhk", own["attn_pattern"].to(shared), shared)
            yield Identity("attn_pattern head_v = head_z", ("attn_pattern",), z, own["head_z"])
    if {"head_z", "attn_out"} <= own.keys():
        out = torch.einsum("bphk,hdk->bpd", own["head_z"], weights.W_O(layer)) + weights.b_O(layer)
        out = weights.normed("attn_post", layer, out) * spec.residual_scale
        equation = "norm(head_z W_O) = attn_out"
        yield Identity(equation, ("head_z", "attn_out"), out, own["attn_out"])


def _first_token(values: Tensor, z: Tensor) -> Identity:
    """The first token of a row without padding sees itself alone, or itself and a sink."""
    v, seen = values[0, 0], z.clone()
    share = (z[0, 0] * v).sum(-1, keepdim=True) / v.square().sum(-1, keepdim=True).clamp_min(1e-30)
    seen[0, 0] = share * v
    return Identity("head_z of the first token = its head_v", ("head_v",), seen, z)


def _mlp(own: dict[str, Tensor], weights: LoadedWeights, layer: int) -> Iterator[Identity]:
    from transformers.activations import ACT2FN

    spec = weights.spec
    stream = "resid_pre" if spec.parallel else "resid_mid"
    if {stream, "mlp_in"} <= own.keys():
        blamed = ("mlp_in",) if spec.parallel else ("attn_out", "resid_mid")
        read = weights.normed("mlp", layer, own[stream])
        yield Identity(f"norm({stream}) = mlp_in", blamed, read, own["mlp_in"])
    for kind in ("up", "gate"):
        site = f"mlp_{kind}"
        if {"mlp_in", site} <= own.keys():
            made = own["mlp_in"] @ weights.neurons(kind, layer).T + weights.bias(kind, layer)
            yield Identity(f"mlp_in W_{kind}^T = {site}", ("mlp_in", site), made, own[site])
    if {"mlp_up", "mlp_post"} <= own.keys():
        act, up = ACT2FN[spec.activation], own["mlp_up"]
        hidden = act(own["mlp_gate"]) * up if "mlp_gate" in own else act(up)
        yield Identity("act(mlp_gate) mlp_up = mlp_post", ("mlp_post",), hidden, own["mlp_post"])
    if {"mlp_post", "mlp_out"} <= own.keys():
        out = own["mlp_post"] @ weights.neurons("down", layer) + weights.bias("down", layer)
        out = weights.normed("mlp_post", layer, out) * spec.residual_scale
        yield Identity("norm(mlp_post W_down) = mlp_out", ("mlp_out",), out, own["mlp_out"])


def _stream(own: dict[str, Tensor], spec: ModelSpec) -> Iterator[Identity]:
    terms = ("resid_pre", "attn_out", "mlp_out") if spec.parallel else ("resid_mid", "mlp_out")
    if {*terms, "resid_post"} <= own.keys():
        added = sum((own[term] for term in terms[1:]), own[terms[0]])
        # what the MLP's norm reads is the stream in between, whatever is added after
        seen = "mlp_in" in own and not spec.parallel
        blamed = ("mlp_out",) if seen else tuple(t for t in terms if t != "resid_pre")
        yield Identity(f"{' + '.join(terms)} = resid_post", blamed, added, own["resid_post"])


def _chain(values: Values, spec: ModelSpec) -> Iterator[Identity]:
    for layer in range(spec.n_layers):
        last = layer + 1 == spec.n_layers
        after = Site("final_norm_in") if last else Site("resid_pre", layer + 1)
        if {Site("resid_post", layer), after} <= values.keys():
            equation = "resid_post = what the next layer reads"
            yield Identity(
                equation, ("resid_post", after.kind), values[Site("resid_post", layer)],
                values[after],
            )  # fmt: skip


class Checked(NamedTuple):
    """The outcome for a model's sites."""

    errors: dict[str, float]
    """Kind of site -> the largest difference of the equations that it is answerable for."""
    faults: dict[str, str]
    """Kind of site -> which equation fails, and by how much."""

    @property
    def largest(self) -> float:
        """Of the sites that hold."""
        held = [error for kind, error in self.errors.items() if kind not in self.faults]
        return max(held, default=float("nan"))


def probe_rows(
    d_vocab: int, context: int | None
) -> tuple[Int[Tensor, "2 pos"], Bool[Tensor, "2 pos"]]:
    """Two rows of tokens, the second one padded, and where they are real."""
    length = min(PROBE, context or PROBE)
    ids = torch.arange(1, 2 * length + 1).view(2, length) % d_vocab
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[1, : length // 2 - 1] = False
    return ids, mask


def rounding(logits: Tensor) -> float:
    """The largest difference between two ways to the same logits that rounding makes."""
    # transformers computes norms in float32, of a model in float64 too
    relative = max(TOLERANCE[logits.dtype], TOLERANCE[torch.float32])
    return 10 * relative * float(logits.abs().max())


def check_causal(model: Any, row: Int[Tensor, " pos"], logits: Tensor) -> None:
    """Raise UserError for a model whose logits change with the tokens behind them.

    Args:
        logits: what the model gives for the row alone [pos, d_vocab].
    """
    if len(row) < 2:
        return
    before = logits[:-1]
    moved = float((model(input_ids=row[None, :-1]).logits[0].to(before) - before).abs().max())
    if moved > rounding(before):
        raise UserError(
            f"this model cannot be opened: {BOTH_WAYS}; one more token moves the logits before it "
            f"by up to {moved:.1e}"
        )


def looked_at(sites: Iterable[Site], spec: ModelSpec) -> list[Site]:
    """The sites that `check` needs: the stream everywhere, the rest of the probed layers."""
    every = list(sites)
    layers, stream = probed(every, spec), ("resid_pre", "resid_post")
    return [site for site in every if site.layer in (None, *layers) or site.kind in stream]


def misshapen(values: Values, rows: tuple[int, ...], spec: ModelSpec) -> dict[str, str]:
    """Kinds of site whose activations have another shape than the sizes imply, and which."""
    own = {
        "head_v": (spec.n_kv_heads, spec.d_head),
        "head_z": (spec.n_heads, spec.d_head),
        "logits": (spec.d_vocab,),
        **dict.fromkeys(("mlp_up", "mlp_gate", "mlp_post"), (spec.d_mlp,)),
    }
    found = {}
    for site, x in values.items():
        shape = (*rows, *own.get(site.kind, (spec.d_model,)))
        if site.kind == "attn_pattern":
            shape = (rows[0], spec.n_heads, rows[1], rows[1])
        if tuple(x.shape) != shape:
            found[site.kind] = f"on a probe it is {list(x.shape)}, not {list(shape)}"
    return found


@torch.no_grad()
def check(
    found: dict[Site, Tensor], real: Bool[Tensor, "batch pos"], weights: LoadedWeights
) -> Checked:
    """Which kinds of site hold on captured activations, and how well."""
    dtype = next(iter(found.values())).dtype
    exact = torch.promote_types(dtype, torch.float32)
    values = {site: x.cpu().to(exact) for site, x in found.items()}
    errors: dict[str, float] = {}
    faults = misshapen(values, tuple(real.shape), weights.spec)
    fitting = {site: x for site, x in values.items() if site.kind not in faults}
    for identity in identities(fitting, weights):
        error = identity.error(real.cpu())
        for kind in identity.kinds:
            errors[kind] = max(errors.get(kind, 0.0), error)
            if not error <= TOLERANCE[dtype]:
                faults[kind] = f"on a probe '{identity.equation}' is wrong by {error:.1e} of it"
    return Checked(errors, faults)
