"""Paths of heads and MLPs to an observable, and the feature vector at the beginning of each.

A path (6.6 -> 9.1 -> 13.11) is read from the input side; its vector is made from the other end:
the observable is taken back through the last head or MLP, then through the norm that it reads
through, then through the one before it. Naive equivalent (frozen scales): the gradient by autograd
with patterns, norm scales and every term off the path detached.

A feature vector y lives *behind the norm* that the path's first head or MLP reads through; its
score on a stream x is y.N(x), with x's own scale: (fold(y).x) / sigma(x) + y.offset. So a head's
feature is a direction at `resid_pre` of its layer (the site of x) with the vector fold(y); an MLP's
is y at `mlp_in`, behind the norm. A feature made with true gradients is never scored.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor

from ..errors import UserError
from ..model.site import Site
from ..model.weights import NormKind
from .model_weights import StackedWeights
from .norms import Mode
from .observables import Observable
from .propagate import Linearised, linearise_mlp
from .trace import Trace


class Node(NamedTuple):
    """A head, or an MLP (head None), of a layer: '9.1', '9.mlp'."""

    layer: int
    head: int | None

    @classmethod
    def parse(cls, text: str) -> Node:
        match = re.fullmatch(r"\s*(\d+)\.(\d+|mlp)\s*", text)
        if not match:
            raise UserError(f"'{text}' names no head or MLP: write 9.1 (a head) or 9.mlp")
        return cls(int(match[1]), None if match[2] == "mlp" else int(match[2]))

    def __str__(self) -> str:
        return f"{self.layer}.{'mlp' if self.head is None else self.head}"

    @property
    def kind(self) -> Literal["attn", "mlp"]:
        return "mlp" if self.head is None else "attn"

    def before(self, other: Node, parallel: bool) -> bool:
        """Whether the other one reads what this one writes."""
        in_layer = self.kind == "attn" and other.kind == "mlp" and not parallel
        return self.layer < other.layer or (self.layer == other.layer and in_layer)


Path = tuple[Node, ...]


def parse_path(text: str) -> Path:
    """'6.6 > 9.1 > 13.11', from the input side."""
    return tuple(map(Node.parse, text.split(">")))


def show(path: Path) -> str:
    return " > ".join(map(str, path))


class PathInPrompt(NamedTuple):
    """Where a path runs in a prompt: the prompt's trace, the position each head or MLP of the path
    reads, and last the one that the observable is read at (so one more than the path is long)."""

    trace: Trace
    positions: tuple[int, ...]
    counterfactual: Trace | None = None
    """MLPs are linearised between the two prompts; without it, at the prompt's own activation."""

    def reads(self, kind: NormKind, layer: int, step: int) -> Float[Tensor, " d"]:
        """The activation a norm reads at a step of the path."""
        return self.trace.reads(kind, layer, self.positions[step])


@dataclass(frozen=True)
class Feature:
    """What a path reads: vector.N(x) + offset is its share of the observable (per unit of
    attention unless it was weighted)."""

    path: Path
    vector: Float[Tensor, " d"]
    offset: float
    mode: Mode
    mlps: tuple[Linearised, ...] = ()
    """How its MLPs were linearised, from the input side."""

    @property
    def site(self) -> Site:
        first = self.path[0]
        return Site("mlp_in" if first.kind == "mlp" else "resid_pre", first.layer)


def path_feature(
    weights: StackedWeights,
    observable: Observable,
    path: Path,
    mode: Mode = "ignore",
    prompt: PathInPrompt | None = None,
    weighted: bool = False,
) -> Feature:
    """The feature vector of a path.

    Args:
        mode: how the norms along the path, and the final one, are taken.
        prompt: needed unless the mode is "ignore" and the path has heads only.
        weighted: multiply by the attention each head pays along the path (needs a prompt).

    Raises:
        UserError: a head or MLP the model lacks, in no order to pass anything on, or no prompt
            where one is needed.
    """
    _check(weights, path, mode, prompt, weighted)
    m = weights.start(observable)
    offset = float(m @ weights.final_norm.offset) if mode == "frozen" else 0.0
    m = weights.final_norm.pull(m, mode, prompt.reads("final", 0, -1) if prompt else None)
    mlps: list[Linearised] = []
    for step in reversed(range(len(path))):
        node = path[step]
        y, constant, linearised = _through(weights, m, node, mode, prompt, step)
        mlps += [linearised] if linearised else []
        if weighted and prompt and node.head is not None:
            source, target = prompt.positions[step : step + 2]
            attention = float(prompt.trace.pattern[node.layer, node.head, target, source])
            y, constant = attention * y, attention * constant
        offset += constant
        if step:
            norm = weights.norm(node.kind, node.layer)
            offset += float(y @ norm.offset) if mode == "frozen" else 0.0
            m = norm.pull(y, mode, prompt.reads(node.kind, node.layer, step) if prompt else None)
    return Feature(path, y, offset, mode, tuple(reversed(mlps)))


def _through(
    weights: StackedWeights,
    m: Tensor,
    node: Node,
    mode: Mode,
    prompt: PathInPrompt | None,
    step: int,
) -> tuple[Tensor, float, Linearised | None]:
    """m taken back through one head or MLP: (what reads behind its norm, the constant, how an MLP
    was linearised)."""
    constant, layer = 0.0, node.layer
    post = weights.post_norm(node.kind, layer)
    if post is not None and mode != "ignore":
        assert prompt is not None
        constant += float(m @ post.offset) if mode == "frozen" else 0.0
        m = post.pull(m, mode, prompt.reads(f"{node.kind}_post", layer, step + 1))  # type: ignore[arg-type]
    if node.head is not None:
        q, kv = weights.W_O[layer, node.head].T @ m, weights.kv(node.head)
        return weights.W_V[layer, kv].T @ q, constant + float(q @ weights.b_V[layer, kv]), None
    assert prompt is not None
    norm, position = weights.norm("mlp", layer), prompt.positions[step]
    both = [trace for trace in (prompt.trace, prompt.counterfactual) if trace is not None]
    ends = [norm(trace.reads("mlp", layer, position)) for trace in both]
    linearised = linearise_mlp(weights.mlp(layer), m, *ends)
    return linearised.vector, constant + linearised.offset, linearised


def _check(
    weights: StackedWeights, path: Path, mode: Mode, prompt: PathInPrompt | None, weighted: bool
) -> None:
    spec = weights.spec
    if not path:
        raise UserError("an empty path: name at least one head or MLP, such as 9.1")
    for node in path:
        if node.layer >= spec.n_layers or (node.head or 0) >= spec.n_heads:
            raise UserError(
                f"this model has no {node}: its layers are 0..{spec.n_layers - 1}, its heads 0.."
                f"{spec.n_heads - 1}"
            )
    for early, late in itertools.pairwise(path):
        if not early.before(late, spec.parallel):
            raise UserError(f"{late} cannot read what {early} writes: put the earlier one first")
    has_mlp = any(node.head is None for node in path)
    if prompt is None and (mode != "ignore" or has_mlp or weighted):
        raise UserError(
            f"the path {show(path)} with norms '{mode}' needs a prompt, whose activations it uses"
        )
    positions = prompt.positions if prompt else ()
    if prompt and len(positions) != len(path) + 1:
        raise ValueError(f"the path {show(path)} needs {len(path) + 1} positions: {positions}")
    for node, read, write in zip(path, positions, positions[1:], strict=False):
        if read > write or (node.head is None and read != write):
            raise ValueError(f"{node} cannot read position {read} and write {write}")
