"""Which paths matter: a greedy beam over heads x positions and MLPs, by path patching.

From a prompt and its counterfactual, aligned token by token. Beginning at the observable, all that
writes to what the path so far reads is a candidate: an MLP, or a head with one source position. Its
effect is the change in the observable when its message (and nothing else) is taken from the
counterfactual prompt and carried along the path, through the real norms and MLPs, with attention
patterns along the path as they are:

    effect = observable(prompt) - observable(prompt with the message patched along the path)

Candidates are screened by first-order effects (one derivative for all of them), the best `screen`
of them measured so. The `width` strongest are extended, up to `depth` heads and MLPs. Naive
equivalent: patch the output of one head or MLP where one later one reads it, a forward pass each.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.functional import vjp

from ..progress import progress
from .model_weights import StackedWeights
from .observables import Observable
from .paths import Node, Path, PathInPrompt, path_feature
from .trace import Trace


class FoundPath(NamedTuple):
    """A path, where it runs, and how much of the observable's difference it carries."""

    path: Path
    positions: tuple[int, ...]
    effect: float


class Pair(NamedTuple):
    """A prompt's trace and its counterfactual's."""

    clean: Trace
    other: Trace


def carried(
    weights: StackedWeights,
    observable: Observable,
    trace: Trace,
    path: Path,
    positions: tuple[int, ...],
    delta: Float[Tensor, "n d"],
) -> Float[Tensor, " n"]:
    """How the observable changes when `delta` is added to the stream that the path's first head or
    MLP reads (the empty path: the end of the stream), and carried along the path only."""
    for step, node in enumerate(path):
        source, target = positions[step], positions[step + 1]
        x = trace.reads(node.kind, node.layer, source)
        norm = weights.norm(node.kind, node.layer)
        if node.head is None:
            mlp = weights.mlp(node.layer)
            written = mlp(norm(x + delta)) - mlp(norm(x))
        else:
            W_V = weights.W_V[node.layer, weights.kv(node.head)]
            z = (norm(x + delta) - norm(x)) @ W_V.T
            attention = trace.pattern[node.layer, node.head, target, source]
            written = attention * z @ weights.W_O[node.layer, node.head].T
        post = weights.post_norm(node.kind, node.layer)
        if post is not None:
            before = trace.reads(f"{node.kind}_post", node.layer, target)  # type: ignore[arg-type]
            written = post(before + written) - post(before)
        delta = written
    x, m0 = trace.reads("final", 0, positions[-1]), weights.start(observable)
    change: Tensor = (weights.final_norm(x + delta) - weights.final_norm(x)) @ m0
    return change


def search_paths(
    weights: StackedWeights,
    observable: Observable,
    pair: Pair,
    width: int = 5,
    depth: int = 3,
    keep: int = 50,
    screen: int = 400,
) -> list[FoundPath]:
    """The paths of strongest effect, of every length up to `depth`; strongest first.

    At each step `width` paths are extended, each by the best of `screen` candidates; `keep` of
    each length are returned.
    """
    beam = [FoundPath((), (pair.clean.last,), 0.0)]
    paths: list[FoundPath] = []
    with progress("search paths", depth, "steps") as advance:
        for _ in range(depth):
            longer = [
                longer
                for path in beam
                for longer in _extensions(weights, observable, pair, path, screen)
            ]
            longer.sort(key=lambda p: -abs(p.effect))
            paths += longer[:keep]
            beam = longer[:width]
            advance(1)
    return sorted(paths, key=lambda p: -abs(p.effect))


def _extensions(
    weights: StackedWeights, observable: Observable, pair: Pair, path: FoundPath, screen: int
) -> list[FoundPath]:
    """Paths longer by one head or MLP: those of the strongest first-order effects, measured."""
    at, spec = path.positions[0], weights.spec
    first = path.path[0] if path.path else Node(spec.n_layers, None)
    heads = [i for i in range(spec.n_layers) if Node(i, 0).before(first, spec.parallel)]
    mlps = [i for i in range(spec.n_layers) if Node(i, None).before(first, spec.parallel)]
    places = itertools.product(heads, range(spec.n_heads), range(at + 1))
    candidates = [(Node(i, head), source) for i, head, source in places]
    candidates += [(Node(i, None), at) for i in mlps]
    if not candidates:
        return []
    messages = _head_messages(weights, pair, len(heads), at).flatten(0, 2)
    patched = torch.cat([messages, (pair.other.mlp_out - pair.clean.mlp_out)[: len(mlps), at]])
    nothing = torch.zeros(1, spec.d_model, dtype=weights.dtype)

    def moved(delta: Tensor) -> Tensor:
        return carried(weights, observable, pair.clean, path.path, path.positions, delta)

    _, slope = vjp(lambda delta: moved(delta)[0], nothing)  # type: ignore[no-untyped-call]
    kept = (patched @ slope[0]).abs().topk(min(screen, len(patched))).indices
    effects = -moved(patched[kept])
    return [
        FoundPath((node, *path.path), (source, *path.positions), effect)
        for i, effect in zip(kept.tolist(), effects.tolist(), strict=True)
        for node, source in [candidates[i]]
    ]


def _head_messages(
    weights: StackedWeights, pair: Pair, layers: int, at: int
) -> Float[Tensor, "layer head source d"]:
    """What each head brings to a position from each source: counterfactual minus clean."""
    group = weights.spec.n_heads // weights.spec.n_kv_heads

    def weighted(trace: Trace) -> Tensor:
        values = trace.values[:layers, :, : at + 1].repeat_interleave(group, dim=1)
        return trace.pattern[:layers, :, at, : at + 1, None] * values

    z = weighted(pair.other) - weighted(pair.clean)
    messages = torch.einsum("lhsk,lhdk->lhsd", z, weights.W_O[:layers])
    for i in range(layers):
        if norm := weights.post_norm("attn", i):  # a head's share, at the scale of all heads' sum
            scale = norm.scale(pair.clean.reads("attn_post", i, at))
            messages[i] = norm.centre(messages[i]) / scale * norm.gain
    return messages


def linearisation(
    weights: StackedWeights, observable: Observable, pair: Pair, path: FoundPath
) -> tuple[float, float]:
    """How well a path's vector stands for the path on the pair it was made from: the change of the
    observable where its first head or MLP reads what it reads in the counterfactual prompt, as the
    vector predicts it (weighted by attention) and through the real norms and MLPs along the path.
    """
    prompt = PathInPrompt(pair.clean, path.positions, pair.other)
    feature = path_feature(weights, observable, path.path, "frozen", prompt, weighted=True)
    first, source = path.path[0], path.positions[0]
    x, other = (trace.reads(first.kind, first.layer, source) for trace in pair)
    norm = weights.norm(first.kind, first.layer)
    predicted = float(feature.vector @ (norm(x) - norm(other)))
    moved = (other - x)[None]
    actual = -carried(weights, observable, pair.clean, path.path, path.positions, moved)
    return predicted, float(actual[0])
