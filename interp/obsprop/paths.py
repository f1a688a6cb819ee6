"""Paths of heads and MLPs to an observable, and the feature vector at the beginning of each.

A path (6.6 -> 9.1 -> 13.11) is read from the input side; its vector is made from the other end:
the observable is taken back through the last part, then through the norm that part reads through,
then through the part before it. Naive equivalent (frozen scales): the gradient by autograd with
patterns, norm scales and every term off the path detached.

A feature vector y lives *behind the norm* that its first part reads through; its score on a
stream x is y.N(x), with x's own scale: (fold(y).x) / sigma(x) + y.offset. So a head's feature is a
direction at `resid_pre` of its layer (the site of x) with the vector fold(y); an MLP's is y at
`mlp_in`, behind the norm. A feature made with true gradients is never scored.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor

from ..errors import UserError
from ..model.site import Site
from .norms import Mode
from .observables import Observable
from .parts import Parts
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
            raise UserError(f"'{text}' is no part of a model: write 9.1 (a head) or 9.mlp")
        return cls(int(match[1]), None if match[2] == "mlp" else int(match[2]))

    def __str__(self) -> str:
        return f"{self.layer}.{'mlp' if self.head is None else self.head}"

    @property
    def kind(self) -> Literal["attn", "mlp"]:
        return "mlp" if self.head is None else "attn"

    def before(self, other: Node, parallel: bool) -> bool:
        """Whether the other part reads what this one writes."""
        in_layer = self.kind == "attn" and other.kind == "mlp" and not parallel
        return self.layer < other.layer or (self.layer == other.layer and in_layer)


Path = tuple[Node, ...]


def parse_path(text: str) -> Path:
    """'6.6 > 9.1 > 13.11', from the input side."""
    return tuple(Node.parse(part) for part in text.split(">"))


def show(path: Path) -> str:
    return " > ".join(map(str, path))


class Place(NamedTuple):
    """Where a path runs in a prompt: its trace, and the positions its parts read and, last, the
    one that the observable is read at: one more than there are parts."""

    found: Trace
    positions: tuple[int, ...]
    other: Trace | None = None
    """The counterfactual prompt's: MLPs are linearised between the two; without it, at the
    prompt's own activation."""
    gates: bool = False
    """MLPs with their gates frozen in place of their gradient: with norms frozen too, the vectors
    of all paths add up to how the prompt's logits came about (see interp.linearscope)."""


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
    def first(self) -> Node:
        return self.path[0]

    @property
    def site(self) -> Site:
        kind = "mlp_in" if self.first.kind == "mlp" else "resid_pre"
        return Site(kind, self.first.layer)


def path_feature(
    parts: Parts,
    observable: Observable,
    path: Path,
    mode: Mode = "ignore",
    place: Place | None = None,
    weighted: bool = False,
) -> Feature:
    """The feature vector of a path.

    Args:
        mode: how the norms between the parts, and the final one, are taken.
        place: needed unless the mode is "ignore" and the path has heads only.
        weighted: multiply by the attention each head pays along the path (needs a place).

    Raises:
        UserError: a part the model lacks, parts out of order, a place that is needed.
    """
    _check(parts, path, mode, place, weighted)
    m = observable.start(parts.W_U).to(parts.dtype)
    offset = float(m @ parts.final_norm.offset) if mode == "frozen" else 0.0
    final = place.found.reads("final", 0, place.positions[-1]) if place else None
    m = parts.final_norm.pull(m, mode, final)
    mlps: list[Linearised] = []
    for step in reversed(range(len(path))):
        node = path[step]
        y, constant = _through(parts, m, node, mode, place, step, mlps)
        if weighted and place and node.head is not None:
            source, target = place.positions[step : step + 2]
            attention = float(place.found.pattern[node.layer, node.head, target, source])
            y, constant = attention * y, attention * constant
        offset += constant
        if step:
            norm = parts.norm(node.kind, node.layer)
            offset += float(y @ norm.offset) if mode == "frozen" else 0.0
            x = _reads(place, node, step)
            m = norm.pull(y, mode, x)
    return Feature(path, y, offset, mode, tuple(reversed(mlps)))


def _reads(place: Place | None, node: Node, step: int) -> Tensor | None:
    return place.found.reads(node.kind, node.layer, place.positions[step]) if place else None


def _through(
    parts: Parts,
    m: Tensor,
    node: Node,
    mode: Mode,
    place: Place | None,
    step: int,
    mlps: list[Linearised],
) -> tuple[Tensor, float]:
    """m taken back through one part: (what reads behind its norm, the constant)."""
    constant = 0.0
    post = parts.post_norm(node.kind, node.layer)
    if post is not None and mode != "ignore":
        assert place is not None
        writes = place.found.reads(f"{node.kind}_post", node.layer, place.positions[step + 1])  # type: ignore[arg-type]
        constant += float(m @ post.offset) if mode == "frozen" else 0.0
        m = post.pull(m, mode, writes)
    if node.head is not None:
        q = parts.W_O[node.layer, node.head].T @ m
        kv = parts.kv(node.head)
        return parts.W_V[node.layer, kv].T @ q, constant + float(q @ parts.b_V[node.layer, kv])
    assert place is not None
    norm = parts.norm("mlp", node.layer)
    ends = [
        norm(found.reads("mlp", node.layer, place.positions[step]))
        for found in (place.found, place.other)
        if found is not None
    ]
    if place.gates:
        vector, rest = parts.mlp(node.layer).frozen(m, ends[0])
        return vector, constant + float(rest)
    made = linearise_mlp(parts.mlp(node.layer), m, *ends)
    mlps.append(made)
    return made.vector, constant + made.offset


def _check(parts: Parts, path: Path, mode: Mode, place: Place | None, weighted: bool) -> None:
    spec = parts.spec
    if not path:
        raise UserError("an empty path: name at least one head or MLP, such as 9.1")
    for node in path:
        if node.layer >= spec.n_layers or (node.head or 0) >= spec.n_heads:
            raise UserError(
                f"no {node} in this model: layers 0..{spec.n_layers - 1}, heads 0.."
                f"{spec.n_heads - 1}"
            )
    for early, late in itertools.pairwise(path):
        if not early.before(late, spec.parallel):
            raise UserError(f"{early} does not write to what {late} reads: order the path")
    has_mlp = any(node.head is None for node in path)
    if place is None and (mode != "ignore" or has_mlp or weighted):
        raise UserError(f"the path {show(path)} with norms '{mode}' needs a prompt to be taken at")
    if place is not None:
        _check_positions(path, place.positions)


def _check_positions(path: Path, positions: Sequence[int]) -> None:
    if len(positions) != len(path) + 1:
        raise ValueError(f"{len(path)} parts need {len(path) + 1} positions, not {len(positions)}")
    for node, read, write in zip(path, positions, positions[1:], strict=False):
        if read > write or (node.head is None and read != write):
            raise ValueError(f"{node} cannot read position {read} and write {write}")
