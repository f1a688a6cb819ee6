"""Which paths matter: a greedy beam over heads x positions and MLPs, by path patching.

From a prompt and its counterfactual, aligned token by token. Beginning at the observable, every
part that writes to what the path so far reads is a candidate: an MLP, or a head with one source
position. Its effect is the change in the observable when its message (and nothing else) is taken
from the counterfactual prompt and carried along the path, through the real norms and MLPs, with
attention patterns along the path as they are:

    effect = observable(prompt) - observable(prompt with the message patched along the path)

Candidates are screened by first-order effects (one derivative for all of them), the best `screen`
of them measured so. The `width` strongest are extended, up to `depth` parts. Naive equivalent:
patch one part's output where one later part reads it, in a forward pass of its own each.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..progress import progress
from .norms import Norm
from .observables import Observable
from .parts import Parts
from .paths import Node, Path, Place, path_feature
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
    parts: Parts,
    observable: Observable,
    found: Trace,
    path: Path,
    positions: tuple[int, ...],
    delta: Float[Tensor, "n d"],
) -> Float[Tensor, " n"]:
    """How the observable changes when `delta` is added to the stream that the path's first part
    reads (the empty path: the end of the stream), and carried along the path only."""
    for step, node in enumerate(path):
        source, target = positions[step], positions[step + 1]
        x = found.reads(node.kind, node.layer, source)
        norm = parts.norm(node.kind, node.layer)
        if node.head is None:
            mlp = parts.mlp(node.layer)
            written = mlp(norm(x + delta)) - mlp(norm(x))
        else:
            W_V = parts.W_V[node.layer, parts.kv(node.head)]
            z = (norm(x + delta) - norm(x)) @ W_V.T
            attention = found.pattern[node.layer, node.head, target, source]
            written = attention * z @ parts.W_O[node.layer, node.head].T
        post = parts.post_norm(node.kind, node.layer)
        if post is not None:
            before = found.reads(f"{node.kind}_post", node.layer, target)  # type: ignore[arg-type]
            written = post(before + written) - post(before)
        delta = written
    x, m0 = found.reads("final", 0, positions[-1]), observable.start(parts.W_U).to(parts.dtype)
    change: Tensor = (parts.final_norm(x + delta) - parts.final_norm(x)) @ m0
    return change


def search_paths(
    parts: Parts,
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
    found: list[FoundPath] = []
    with progress("search paths", depth, "steps") as advance:
        for _ in range(depth):
            longer = [
                longer
                for path in beam
                for longer in _extensions(parts, observable, pair, path, screen)
            ]
            longer.sort(key=lambda p: -abs(p.effect))
            found += longer[:keep]
            beam = longer[:width]
            advance(1)
    return sorted(found, key=lambda p: -abs(p.effect))


def _extensions(
    parts: Parts, observable: Observable, pair: Pair, path: FoundPath, screen: int
) -> list[FoundPath]:
    """Paths that are one part longer: those of the strongest first-order effects, measured."""
    at = path.positions[0]
    spec = parts.spec
    end = Node(spec.n_layers, None)
    first = path.path[0] if path.path else end
    heads = [i for i in range(spec.n_layers) if Node(i, 0).before(first, spec.parallel)]
    mlps = [i for i in range(spec.n_layers) if Node(i, None).before(first, spec.parallel)]
    deltas = [_head_messages(parts, pair, len(heads), at).flatten(0, 2)]
    deltas.append((pair.other.mlp_out - pair.clean.mlp_out)[: len(mlps), at])
    patched = torch.cat(deltas)
    if not len(patched):
        return []
    slope = _slope(parts, observable, pair.clean, path)
    kept = (patched @ slope).abs().topk(min(screen, len(patched))).indices
    effects = -carried(parts, observable, pair.clean, path.path, path.positions, patched[kept])
    sources = at + 1
    longer = []
    for i, effect in zip(kept.tolist(), effects.tolist(), strict=True):
        if i < len(heads) * spec.n_heads * sources:
            layer, rest = divmod(i, spec.n_heads * sources)
            node, source = Node(layer, rest // sources), rest % sources
        else:
            node, source = Node(i - len(heads) * spec.n_heads * sources, None), at
        longer.append(FoundPath((node, *path.path), (source, *path.positions), effect))
    return longer


def _slope(parts: Parts, observable: Observable, found: Trace, path: FoundPath) -> Tensor:
    """Derivative of the observable by what is added to the stream that a path reads."""
    with torch.enable_grad():
        leaf = torch.zeros(1, parts.spec.d_model, dtype=parts.dtype, requires_grad=True)
        change = carried(parts, observable, found, path.path, path.positions, leaf)
        (slope,) = torch.autograd.grad(change[0], leaf)
    return slope[0]


def _head_messages(
    parts: Parts, pair: Pair, layers: int, at: int
) -> Float[Tensor, "layer head source d"]:
    """What each head brings to a position from each source: counterfactual minus clean."""
    group = parts.spec.n_heads // parts.spec.n_kv_heads

    def weighted(found: Trace) -> Tensor:
        values = found.values[:layers, :, : at + 1].repeat_interleave(group, dim=1)
        return found.pattern[:layers, :, at, : at + 1, None] * values

    z = weighted(pair.other) - weighted(pair.clean)
    messages = torch.einsum("lhsk,lhdk->lhsd", z, parts.W_O[:layers])
    norms = [parts.post_norm("attn", i) for i in range(layers)]
    if not layers or norms[0] is None:
        return messages
    scaled = [
        _linear(norm, messages[i], pair.clean.reads("attn_post", i, at))
        for i, norm in enumerate(norms)
        if norm is not None
    ]
    return torch.stack(scaled)


def _linear(norm: Norm, written: Tensor, at: Tensor) -> Tensor:
    """A part of what goes through a norm, at the whole's scale."""
    scaled: Tensor = norm.centre(written) / norm.scale(at) * norm.gain
    return scaled


class Linearisation(NamedTuple):
    """How well a path's vector stands for the path itself, on the pair it was made from."""

    predicted: float
    """From the vector: vector.(N(x) - N(x')), weighted by attention."""
    actual: float
    """With the real norms and MLPs along the path."""

    @property
    def error(self) -> float:
        """|predicted - actual| / |actual|"""
        return abs(self.predicted - self.actual) / max(abs(self.actual), 1e-30)


def linearisation(
    parts: Parts, observable: Observable, pair: Pair, path: FoundPath
) -> Linearisation:
    """A path's vector against the path: what its first part reads is replaced by what it reads in
    the counterfactual prompt."""
    place = Place(pair.clean, path.positions, pair.other)
    feature = path_feature(parts, observable, path.path, "frozen", place, weighted=True)
    first, source = path.path[0], path.positions[0]
    x, other = (found.reads(first.kind, first.layer, source) for found in pair)
    norm = parts.norm(first.kind, first.layer)
    predicted = float(feature.vector @ (norm(x) - norm(other)))
    moved = (other - x)[None]
    actual = -carried(parts, observable, pair.clean, path.path, path.positions, moved)
    return Linearisation(predicted, float(actual[0]))
