"""What a node writes into the residual stream, and the tokens that this says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..lens.lens import Lens
from ..model.readout import open_readout
from ..model.site import Site
from ..model.vocabulary import token_strings
from ..model.weights import Weights
from .latents import Latents
from .network import Network, Node
from .parts import Heads, Index, Neurons, Part, Whole


class Said(NamedTuple):
    """The tokens that a node raises most, and those that it lowers most."""

    top: list[str]
    bottom: list[str]


NOTHING = Said([], [])
_STREAM = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")


def said(
    network: Network, nodes: Sequence[Node], weights: Weights, lens: Lens, k: int
) -> list[Said]:
    """Node by node, what it writes, through a lens; with a counterfactual what it writes more here
    than there. Nothing for constants and embeddings, and for what writes nothing."""
    vectors: dict[int, Tensor] = {}
    for number in dict.fromkeys(node.part for node in nodes):
        own = [n for n, node in enumerate(nodes) if node.part == number]
        part = network.parts[number]
        site = _site(part)
        if site is None or not lens.covers(lens.layer_of(site)):
            continue
        rows = _written(part, [nodes[n].at for n in own], weights)
        if network.changed is not None:
            rows = rows - _written(network.changed[number], [nodes[n].at for n in own], weights)
        some = rows.any(1).tolist()
        carried = lens.vectors(rows.cpu(), site)
        vectors |= {n: row for n, row, any_of in zip(own, carried, some, strict=True) if any_of}
    told = [NOTHING] * len(nodes)
    if vectors:
        strings = token_strings(weights.folder, weights.spec.d_vocab)
        found = open_readout(weights).decode(torch.stack(list(vectors.values())), k)
        for row, n in enumerate(vectors):
            sides = (found.top.ids[row].tolist(), found.bottom.ids[row].tolist())
            told[n] = Said(*([strings[token] for token in side] for side in sides))
    return told


def _site(part: Part) -> Site | None:
    """Where in the stream a part's nodes write; None for what writes elsewhere, or nothing."""
    if isinstance(part, Latents):
        within = {"head_z": Site("attn_out", part.layer), "mlp_post": Site("mlp_out", part.layer)}
        return within.get(part.gives.kind, part.gives if part.gives.kind in _STREAM else None)
    if isinstance(part, Heads) or part.kind == "attention":
        return Site("attn_out", part.layer)
    return Site("mlp_out", part.layer) if part.kind in ("neuron", "mlp") else None


def _written(part: Part, nodes: Sequence[Index], weights: Weights) -> Float[Tensor, "n d_model"]:
    """What nodes add to the stream, but for the scale of a norm on the way."""
    if isinstance(part, Neurons):
        rows = weights.in_stream("down", part.layer)
        return torch.stack([part.activation(at) * rows[at[1]] for at in nodes])
    if isinstance(part, Heads):
        heads = _heads(weights, part.layer).to(part.values)
        return torch.stack([heads[at[1]] @ part.moved(at) for at in nodes])
    if isinstance(part, Latents):
        rows = torch.stack([part.activation(at) * part.rows[at] for at in nodes])
        if part.gives.kind == "head_z":
            heads = _heads(weights, part.layer).to(rows)
            return rows @ heads.transpose(1, 2).flatten(0, 1)
        if part.gives.kind == "mlp_post":
            return rows @ weights.in_stream("down", part.layer).to(rows)
        return rows
    assert isinstance(part, Whole)
    return torch.stack([part.values[at[0]] for at in nodes])


def _heads(weights: Weights, layer: int) -> Float[Tensor, "heads d_model d_head"]:
    """What a layer's heads write, with the gain of a norm behind attention."""
    return weights.W_O(layer) * weights.gain("attn_post", layer)[:, None]
