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
from .parts import Heads, Neurons, Whole


class Said(NamedTuple):
    """The tokens that a node raises most, and those that it lowers most."""

    top: list[str]
    bottom: list[str]


NOTHING = Said([], [])


def said(
    network: Network, nodes: Sequence[Node], weights: Weights, lens: Lens, k: int
) -> list[Said]:
    """Node by node, what it writes through a lens; nothing for constants and embeddings."""
    vectors: dict[int, Tensor] = {}
    for number in dict.fromkeys(node.part for node in nodes):
        own = [n for n, node in enumerate(nodes) if node.part == number]
        rows = _written(network, number, [nodes[n] for n in own], weights)
        if rows is not None:
            layer = network.parts[number].layer
            carried = lens.vectors(rows.cpu(), Site("mlp_out", layer))
            vectors |= dict(zip(own, carried, strict=True))
    told = [NOTHING] * len(nodes)
    if vectors:
        strings = token_strings(weights.folder, weights.spec.d_vocab)
        found = open_readout(weights).decode(torch.stack(list(vectors.values())), k)
        for row, n in enumerate(vectors):
            sides = (found.top.ids[row].tolist(), found.bottom.ids[row].tolist())
            told[n] = Said(*([strings[token] for token in side] for side in sides))
    return told


def _written(
    network: Network, number: int, nodes: Sequence[Node], weights: Weights
) -> Float[Tensor, "n d_model"] | None:
    """What the nodes of a part add to the stream, but for the scale of a norm on the way."""
    part = network.parts[number]
    if isinstance(part, Neurons):
        rows = weights.in_stream("down", part.layer)
        return torch.stack([part.activation(n.at) * rows[n.at[1]] for n in nodes])
    if isinstance(part, Heads):
        W_O = weights.W_O(part.layer).to(part.values)
        gain = weights.gain("attn_post", part.layer).to(part.values)
        moved = torch.stack([W_O[n.at[1]] @ part.moved(n.at) for n in nodes])
        return moved * gain
    if isinstance(part, Latents) and part.rows.shape[1] == weights.spec.d_model:
        return torch.stack([part.activation(n.at) * part.rows[n.at] for n in nodes])
    if isinstance(part, Whole) and part.kind != "embedding":
        return torch.stack([part.values[n.at[0]] for n in nodes])
    return None
