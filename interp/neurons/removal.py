"""The three steps of TARS that make a weight edit: a target vector, its closest neurons, reversal.

Source: TARS, targeted removal of a concept. (1) A detailed text about the concept gives an
approximate vector: the end of the stream at its last position. (2) Noise is added and the result
decoded through the final norm and the LM head; what raises the concept's probability is kept, until
it is high. (3) The neuron vectors with the largest cosine to it are replaced by the reversed vector
at their own length, -|w| v / |v|. Where a norm or a factor follows the MLP, all of this is of what
a neuron adds (`Weights.in_stream`), and the stored vector becomes the one that adds it.

Two things differ here, because in a small model the steps as they stand fail (measured on SmolLM2
with five concepts that no default uses: cat, music, king, car, Tuesday). The end of the stream
after a text is mostly what every such text shares: its closest neurons are the same few for all
concepts. So by default v is the word's row of the LM head itself, with which the atlas finds
specific neurons. And in SwiGLU a neuron acts with either sign, whatever its cosine: turning it by
the cosine's sign *raised* the concept in about half of the cases. So a neuron is turned against
what it adds at the end of the describing text: to -sign(activation) |w| v / |v|.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ..directions import Directions
from ..directions.provenance import Provenance
from ..errors import UserError
from ..model.neuron import NeuronName
from ..model.site import Site
from ..model.subject import Subject
from ..model.vocabulary import token_strings
from ..model.weights import Weights
from .weight_edits import WeightEdit

TRIES, ROUNDS = 48, 40
"""Noisy vectors in a round, and the maximum number of rounds."""
NOISE = 0.3
"""Length of the noise, as a share of the vector's own."""
SURE = 0.9
"""Probability of the concept at which the search ends."""
NO_LENGTH = 1e-300
"""A vector shorter than this, in float64, has no direction."""


def text_target(subject: Subject, text: str, ids: Sequence[int], seed: int = 0) -> Directions:
    """A vector at the end of the stream that makes the model say the concept.

    Its index has the word's `probability`, and `start`, the probability before any noise.

    Args:
        text: a text that the concept's word would continue.
        ids: the tokens that stand for the word.
    """
    weights = subject.weights
    if weights is None:
        raise UserError("a text's target needs a model that was opened from a folder")
    W_U = weights.W_U()
    site = Site("final_norm_in")
    best = subject.capture(subject.tokens(text), [site])[site][0, -1].float().cpu()
    start = probability = float(_probabilities(best[None], ids, weights, W_U))
    generator = torch.Generator().manual_seed(seed)
    for _ in range(ROUNDS):
        if probability >= SURE:
            break
        noise = torch.randn(TRIES, len(best), generator=generator)
        noise *= NOISE * best.norm() / noise.norm(dim=1, keepdim=True)
        tried = best + noise
        chances = _probabilities(tried, ids, weights, W_U)
        if float(chances.max()) > probability:
            best, probability = tried[int(chances.argmax())], float(chances.max())
    index = pd.DataFrame({"name": [text], "start": [start], "probability": [probability]})
    return Directions(site, best[None], index, Provenance.of("neurons.tars", weights))


def head_target(weights: Weights, word: str, ids: Sequence[int]) -> Directions:
    """The LM head's row of a word's token, raw as in the atlas.

    Args:
        ids: the tokens that stand for the word; ' word', as it stands in a sentence, comes first.
    """
    strings = token_strings(weights.folder, weights.spec.d_vocab)
    token = next((i for i in ids if strings[i] == f" {word}"), ids[0])
    index = pd.DataFrame({"name": [word], "token": [strings[token]]})
    made = Provenance.of("neurons.tars", weights)
    return Directions(Site("final_norm_in"), weights.W_U()[token][None], index, made)


def _probabilities(x: Tensor, ids: Sequence[int], weights: Weights, W_U: Tensor) -> Tensor:
    """Summed probability [n] of the tokens where the stream ends in x [n, d]."""
    logits = weights.before_unembedding(x).float() @ W_U.T + weights.b_U()
    return weights.spec.capped(logits).softmax(-1)[:, list(ids)].sum(-1)


def closest(
    weights: Weights, vector: Float[Tensor, " d_model"], n: int
) -> list[tuple[NeuronName, float]]:
    """The n neurons whose cosine of what they add to a vector is largest in size, and their
    cosines; 0 of a neuron that adds nothing."""
    unit = normalize(vector.double(), dim=0, eps=NO_LENGTH)
    candidates: list[tuple[NeuronName, float]] = []
    for layer in range(weights.spec.n_layers):
        added = weights.in_stream("down", layer).double()
        cosine = normalize(added, eps=NO_LENGTH) @ unit
        best = cosine.abs().topk(min(n, len(added))).indices.tolist()
        candidates += [(NeuronName(layer, "down", i), float(cosine[i])) for i in best]
    return sorted(candidates, key=lambda pair: -abs(pair[1]))[:n]


def activations(subject: Subject, neurons: Sequence[NeuronName], text: str) -> Float[Tensor, " n"]:
    """What each neuron's write vector is multiplied by at the end of a text."""
    sites = {name: Site("mlp_post", name.layer) for name in neurons}
    posts = subject.capture(subject.tokens(text), set(sites.values())) if neurons else {}
    return torch.tensor([float(posts[at][0, -1, name.neuron]) for name, at in sites.items()])


def equal_contributors(
    subject: Subject, neurons: Sequence[NeuronName], text: str
) -> list[NeuronName]:
    """For each neuron another of its layer that adds as much at the end of a text, whatever it
    writes: the one with the nearest |activation| |what one unit adds|. A control: what turning so
    much of the stream does, apart from closeness to the concept."""
    weights = subject.weights
    assert weights is not None
    chosen: dict[NeuronName, NeuronName] = {}
    for layer in dict.fromkeys(name.layer for name in neurons):
        site = Site("mlp_post", layer)
        own = subject.capture(subject.tokens(text), [site])[site][0, -1].float().cpu()
        size = own.abs() * weights.in_stream("down", layer).double().norm(dim=1)
        free = size.clone()
        here = [name.neuron for name in neurons if name.layer == layer]
        free[here] = torch.inf
        for neuron in here:
            nearest = int((free - size[neuron]).abs().argmin())
            free[nearest] = torch.inf
            chosen[NeuronName(layer, "down", neuron)] = NeuronName(layer, "down", nearest)
    return [chosen[name] for name in neurons]


def reversal(
    subject: Subject,
    neurons: Sequence[NeuronName],
    vector: Float[Tensor, " d_model"],
    text: str,
    provenance: dict[str, Any] | None = None,
) -> WeightEdit:
    """The edit that turns neurons against a vector, with the sign of what they add at the end of a
    text that describes the concept. What a neuron adds keeps its length, but where a gain of zero
    lets nothing through: there neither the vector nor what is stored has a part."""
    weights = subject.weights
    assert weights is not None
    old = torch.stack([weights.neurons("down", name.layer)[name.neuron] for name in neurons])
    gain = torch.stack([weights.write_gain(name.layer) for name in neurons]).double()
    length = (old * gain).norm(dim=1, keepdim=True)
    unit = normalize(torch.where(gain == 0, 0.0, vector.double()), eps=NO_LENGTH)
    # a neuron that is exactly silent there counts as one that fires
    against = torch.where(activations(subject, neurons, text) < 0, 1.0, -1.0)
    added = against[:, None] * length * unit
    new = torch.where(gain == 0, 0.0, added / gain).float()
    return WeightEdit(tuple(neurons), old, new, {"analysis": "neurons.tars", **(provenance or {})})
