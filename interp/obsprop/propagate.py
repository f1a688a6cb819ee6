"""Taking observables back: through all heads at once, through one MLP, and the direct effects.

Source: Dunefsky & Cohan, 'Observable propagation'. For a vector m that reads the stream, and a
head with its pattern held fixed, y = W_V^T W_O^T m reads what the head reads: at query position t
    m.(head's output) = sum_s a[t, s] (y.N(x_s) + (W_O^T m).b_V)
exactly. For an MLP, y is the gradient of m.MLP(x) at a point x0 on the segment between two
activations where m.MLP(x0) = 0: on that boundary the MLP is not saturated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from .norms import Mode
from .observables import Observable
from .parts import Mlp, Parts
from .trace import Trace

SCAN = 65
"""Points of the segment at which a change of sign is looked for."""


class HeadVectors(NamedTuple):
    """y and the bias term of every head, for n vectors m."""

    vectors: Float[Tensor, "n layer head d"]
    offsets: Float[Tensor, "n layer head"]


def head_vectors(parts: Parts, m: Float[Tensor, "n d"] | Float[Tensor, "n layer d"]) -> HeadVectors:
    """W_V^T W_O^T m of all heads of all layers in one einsum.

    Equivalent, head by head, to `W_V[h // group].T @ W_O[h].T @ m`. With grouped queries the heads
    of a group share their W_V.

    Args:
        m: what reads the stream, the same for all layers or one a layer (after `post_norm`).
    """
    spec = parts.spec
    each = m[:, None].expand(-1, spec.n_layers, -1) if m.ndim == 2 else m
    group = spec.n_heads // spec.n_kv_heads
    W_O = parts.W_O.view(spec.n_layers, spec.n_kv_heads, group, spec.d_model, spec.d_head)
    vectors = torch.einsum("nld,lgadk,lgke->nlgae", each, W_O, parts.W_V)
    offsets = torch.einsum("nld,lgadk,lgk->nlga", each, W_O, parts.b_V)
    return HeadVectors(vectors.flatten(2, 3), offsets.flatten(2, 3))


def readout(parts: Parts, observable: Observable) -> Callable[[Tensor], Tensor]:
    """Activations at `final_norm_in` [..., d] -> the observable's values there [...]: what the
    logits say of it, at the cost of one vector instead of the whole unembedding."""
    m0 = observable.start(parts.W_U).to(parts.dtype)

    def values(x: Tensor) -> Tensor:
        found: Tensor = parts.final_norm(x.cpu().to(parts.dtype)) @ m0
        return found

    return values


def head_norms(parts: Parts, observable: Observable) -> pd.DataFrame:
    """Lengths of an observable's vectors at every head without norm handling, longest first: name,
    layer, head, norm. No data is needed: the weights alone say which heads could matter."""
    m0 = observable.start(parts.W_U).to(parts.dtype)
    lengths = head_vectors(parts, m0[None]).vectors[0].norm(dim=-1)
    rows = [
        {"name": f"{layer}.{head}", "layer": layer, "head": head, "norm": float(norm)}
        for layer, line in enumerate(lengths)
        for head, norm in enumerate(line)
    ]
    return pd.DataFrame(rows).sort_values("norm", ascending=False, ignore_index=True)


class Linearised(NamedTuple):
    """m.MLP(x) near a point: vector.x + offset."""

    vector: Float[Tensor, " d"]
    offset: float
    place: float
    """Where on the segment from the first activation (0) to the second (1)."""
    value: float
    """m.MLP there: zero on the boundary."""
    crossed: bool
    """Whether m.MLP changes its sign on the segment; if not, the place is where it is smallest."""


def linearise_mlp(
    mlp: Mlp,
    m: Float[Tensor, " d"],
    a: Float[Tensor, " d"],
    b: Float[Tensor, " d"] | None = None,
) -> Linearised:
    """The gradient of m.MLP at the boundary point between activations a and b, by bisection; with
    a alone, at a itself (its derivative, which autograd gives too). Exact for a linear MLP."""
    place, crossed = (0.0, False) if b is None else _boundary(mlp, m, a, b)
    at = a if b is None else a + place * (b - a)
    with torch.enable_grad():
        leaf = at.detach().clone().requires_grad_(True)
        value = mlp(leaf) @ m
        (vector,) = torch.autograd.grad(value, leaf)
    reached = float(value.detach())
    return Linearised(vector, reached - float(vector @ at), place, reached, crossed)


def _boundary(mlp: Mlp, m: Tensor, a: Tensor, b: Tensor) -> tuple[float, bool]:
    """Where m.MLP is zero between a and b (the root nearest the middle), and whether it is."""

    def value(t: Tensor) -> Tensor:
        return (mlp(a + t[:, None] * (b - a)) @ m).detach()

    grid = torch.linspace(0, 1, SCAN, dtype=a.dtype)
    values = value(grid)
    signs = values[:-1] * values[1:] <= 0
    if not signs.any():
        return float(grid[values.abs().argmin()]), False
    roots = signs.nonzero()[:, 0]
    start = int(roots[(grid[roots] - 0.5).abs().argmin()])
    low, high = float(grid[start]), float(grid[start + 1])
    rising = float(values[start + 1]) >= float(values[start])
    while low < (middle := (low + high) / 2) < high:  # until no number lies between them
        above = float(value(torch.tensor([middle], dtype=a.dtype))) > 0
        low, high = (low, middle) if above == rising else (middle, high)
    return low, True


class DirectEffects(NamedTuple):
    """What each part adds to an observable at one position; everything sums to its value."""

    heads: Float[Tensor, "layer head"]
    head_biases: Float[Tensor, " layer"]
    """Attention's output bias, which belongs to no head."""
    mlps: Float[Tensor, " layer"]
    embedding: float
    constant: float
    """The norms' offsets."""

    @property
    def total(self) -> float:
        parts = self.heads.sum() + self.head_biases.sum() + self.mlps.sum()
        return float(parts) + self.embedding + self.constant


def stream_vectors(
    parts: Parts, observable: Observable, found: Trace, position: int, mode: Mode = "frozen"
) -> tuple[Tensor, Tensor, Tensor]:
    """m at the end of the stream [d], and what reads each layer's attention and MLP output before
    a post-norm [layer, d]: m itself where the family has none."""
    m0 = observable.start(parts.W_U).to(parts.dtype)
    m = parts.final_norm.pull(m0, mode, found.reads("final", 0, position))
    reads = []
    for kind in ("attn", "mlp"):
        rows = [
            norm.pull(m, mode, found.reads(f"{kind}_post", layer, position)) if norm else m  # type: ignore[arg-type]
            for layer in range(parts.spec.n_layers)
            for norm in [parts.post_norm(kind, layer)]  # type: ignore[arg-type]
        ]
        reads.append(torch.stack(rows))
    return m, reads[0], reads[1]


def direct_effects(
    parts: Parts, observable: Observable, found: Trace, position: int | None = None
) -> DirectEffects:
    """Every part's direct effect on the observable at a position, with patterns and norm scales
    frozen. The effects sum to the observable's value there.

    Args:
        position: by default the last.
    """
    at = found.last if position is None else position
    m, reads, _ = stream_vectors(parts, observable, found, at)
    made = head_vectors(parts, reads[None])
    normed = torch.stack(
        [parts.norm("attn", i)(found.streams["attn"][i]) for i in range(parts.spec.n_layers)]
    )
    per_source = torch.einsum("lhd,lpd->lhp", made.vectors[0], normed) + made.offsets[0, ..., None]
    heads = (found.pattern[:, :, at] * per_source).sum(-1)
    biases = (reads * parts.b_O).sum(-1)
    constant = float(observable.start(parts.W_U).to(parts.dtype) @ parts.final_norm.offset)
    for i in range(parts.spec.n_layers):
        for kind in ("attn", "mlp"):
            post = parts.post_norm(kind, i)  # type: ignore[arg-type]
            constant += float(m @ post.offset) if post else 0.0
    mlps = (found.mlp_out[:, at] - _post_offsets(parts)) @ m
    embedding = float(found.streams["attn"][0, at] @ m)
    return DirectEffects(heads, biases, mlps, embedding, constant)


def _post_offsets(parts: Parts) -> Tensor:
    norms = [parts.post_norm("mlp", i) for i in range(parts.spec.n_layers)]
    zero = torch.zeros(parts.spec.d_model, dtype=parts.dtype)
    return torch.stack([norm.offset if norm else zero for norm in norms])
