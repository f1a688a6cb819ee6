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
from torch.autograd.functional import vjp

from ..model.weights import NormKind
from .model_weights import Mlp, StackedWeights
from .observables import Observable
from .trace import Trace

SCAN = 65
"""Points of the segment at which a change of sign is looked for."""


class HeadVectors(NamedTuple):
    """y and the bias term of every head, for n vectors m."""

    vectors: Float[Tensor, "n layer head d"]
    offsets: Float[Tensor, "n layer head"]


def head_vectors(
    weights: StackedWeights, m: Float[Tensor, "n d"] | Float[Tensor, "n layer d"]
) -> HeadVectors:
    """W_V^T W_O^T m of all heads of all layers in one einsum.

    Equivalent, head by head, to `W_V[h // group].T @ W_O[h].T @ m`. With grouped queries the heads
    of a group share their W_V.

    Args:
        m: what reads the stream, the same for all layers or one a layer (after `post_norm`).
    """
    spec = weights.spec
    each = m[:, None].expand(-1, spec.n_layers, -1) if m.ndim == 2 else m
    group = spec.n_heads // spec.n_kv_heads
    W_O = weights.W_O.view(spec.n_layers, spec.n_kv_heads, group, spec.d_model, spec.d_head)
    vectors = torch.einsum("nld,lgadk,lgke->nlgae", each, W_O, weights.W_V)
    offsets = torch.einsum("nld,lgadk,lgk->nlga", each, W_O, weights.b_V)
    return HeadVectors(vectors.flatten(2, 3), offsets.flatten(2, 3))


def readout(weights: StackedWeights, observable: Observable) -> Callable[[Tensor], Tensor]:
    """Activations at `final_norm_in` [..., d] -> the observable's values there [...]: its values on
    the logits, at the cost of one vector instead of the whole unembedding."""
    m0 = weights.start(observable)

    return lambda x: weights.final_norm(x.cpu().to(weights.dtype)) @ m0


def head_norms(weights: StackedWeights, observable: Observable) -> pd.DataFrame:
    """Lengths of an observable's vectors at every head without norm handling, longest first: name,
    layer, head, norm. No text is run: the weights alone say which heads could matter."""
    m0 = weights.start(observable)
    lengths = head_vectors(weights, m0[None]).vectors[0].norm(dim=-1)
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
    crossed: bool
    """Whether m.MLP changes its sign on the segment; if not, it is taken where it is smallest."""


def linearise_mlp(
    mlp: Mlp,
    m: Float[Tensor, " d"],
    a: Float[Tensor, " d"],
    b: Float[Tensor, " d"] | None = None,
) -> Linearised:
    """The gradient of m.MLP at the boundary point between activations a and b, by bisection; with
    a alone, at a itself (its derivative, which autograd gives too). Exact for a linear MLP."""
    where, crossed = (0.0, False) if b is None else _boundary(mlp, m, a, b)
    at = a if b is None else a + where * (b - a)
    value, vector = vjp(lambda x: mlp(x) @ m, at)  # type: ignore[no-untyped-call]
    return Linearised(vector, float(value) - float(vector @ at), crossed)


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
    """What each head and MLP adds to an observable at one position; all sums to its value."""

    heads: Float[Tensor, "layer head"]
    head_biases: Float[Tensor, " layer"]
    """Attention's output bias, which belongs to no head."""
    mlps: Float[Tensor, " layer"]
    embedding: float
    constant: float
    """The norms' offsets."""

    @property
    def total(self) -> float:
        added = self.heads.sum() + self.head_biases.sum() + self.mlps.sum()
        return float(added) + self.embedding + self.constant


def stream_vectors(
    weights: StackedWeights, observable: Observable, trace: Trace, position: int
) -> tuple[Float[Tensor, " d"], Float[Tensor, "layer d"]]:
    """m at the end of the stream, norms frozen, and what reads each layer's attention output before
    a post-norm: m itself where the family has none."""
    end = trace.reads("final", 0, position)
    m = weights.final_norm.pull(weights.start(observable), "frozen", end)
    reads = [
        norm.pull(m, "frozen", trace.reads("attn_post", layer, position)) if norm else m
        for layer in range(weights.spec.n_layers)
        for norm in [weights.post_norm("attn", layer)]
    ]
    return m, torch.stack(reads)


def direct_effects(
    weights: StackedWeights, observable: Observable, trace: Trace, position: int | None = None
) -> DirectEffects:
    """The direct effect of every head and MLP on the observable at a position, with patterns and
    norm scales frozen. The effects sum to the observable's value there.

    Args:
        position: by default the last.
    """
    at = trace.last if position is None else position
    m, reads = stream_vectors(weights, observable, trace, at)
    made = head_vectors(weights, reads[None])
    normed = torch.stack(
        [weights.norm("attn", i)(trace.streams["attn"][i]) for i in range(weights.spec.n_layers)]
    )
    per_source = torch.einsum("lhd,lpd->lhp", made.vectors[0], normed) + made.offsets[0, ..., None]
    heads = (trace.pattern[:, :, at] * per_source).sum(-1)
    biases = (reads * weights.b_O).sum(-1)
    attn_offsets, mlp_offsets = (_post_offsets(weights, kind) for kind in ("attn", "mlp"))
    constant = float(weights.start(observable) @ weights.final_norm.offset)
    constant += float((attn_offsets + mlp_offsets).sum(0) @ m)
    mlps = (trace.mlp_out[:, at] - mlp_offsets) @ m
    embedding = float(trace.streams["attn"][0, at] @ m)
    return DirectEffects(heads, biases, mlps, embedding, constant)


def _post_offsets(weights: StackedWeights, kind: NormKind) -> Float[Tensor, "layer d"]:
    norms = [weights.post_norm(kind, i) for i in range(weights.spec.n_layers)]
    zero = torch.zeros(weights.spec.d_model, dtype=weights.dtype)
    return torch.stack([norm.offset if norm else zero for norm in norms])
