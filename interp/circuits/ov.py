"""What an attention head moves: its terms in what attention adds, and its OV circuit.

    attn_out[q] = sum over heads h, sources s of P_h[q, s] W_O^h v_s^h + b_O
    v_s^h = W_V^h norm(x_s) + b_V^h

P is the pattern, x_s the stream at position s. With grouped queries W_V and v are those of the kv
head that a head reads. Where a norm stands behind attention (Gemma 2 and 3, OLMo 2, GLM-4) each
term passes it with the scale of the whole, so the terms still add up; so with a factor on what
attention adds (Granite). OV = W_O^h W_V^h, gains of the norms on both sides folded in: what one
token's stream becomes on the way to another. Elhage et al. 2021, "A Mathematical Framework for
Transformer Circuits".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..directions.reading import Scale
from ..errors import UserError
from ..model.families import ModelSpec
from ..model.weights import NormWeights, Weights
from .head import Head


@dataclass(frozen=True)
class Terms:
    """attn_out[q] = sum over h, s of pattern[h, q, s] scale[q] written[h, s] + constant[q], in
    float64."""

    pattern: Float[Tensor, "heads query source"]
    written: Float[Tensor, "heads source d_model"]
    """What each head adds for each source that has all its attention, but for `scale`."""
    scale: Float[Tensor, " query"]
    """1 over the scale of the norm behind attention; 1 without one."""
    constant: Float[Tensor, "query d_model"]
    """The share of b_O, and the norm's offset."""

    def total(self) -> Float[Tensor, "query d_model"]:
        """Their sum: attn_out."""
        summed = torch.einsum("hqs,hsd->qd", self.pattern, self.written)
        return summed * self.scale[:, None] + self.constant

    def lengths(self, head: int) -> Float[Tensor, "query source"]:
        """Of what a head adds at each query for each source."""
        lengths: Tensor = self.written[head].norm(dim=1)
        return self.pattern[head] * self.scale[:, None] * lengths

    def effects(
        self, head: int, row: Float[Tensor, "query d_model"]
    ) -> Float[Tensor, "query source"]:
        """row[q] . (what a head adds at q for s)."""
        reached = row.to(self.written) @ self.written[head].T
        return self.pattern[head] * self.scale[:, None] * reached


def terms(
    weights: Weights,
    layer: int,
    pattern: Float[Tensor, "heads query source"],
    values: Float[Tensor, "source kv d_head"],
) -> Terms:
    """A layer's attention on one prompt, term by term.

    Args:
        pattern, values: the activations at attn_pattern and head_v.

    Raises:
        UserError: a family whose heads pass a gate of their own.
    """
    spec = weights.spec
    if spec.family.gated_heads:
        raise UserError(
            f"the heads of a {spec.model_type} model pass a gate before W_O, which a pattern and "
            "values leave out: patch them with `interp circuits patch --site head_z`"
        )
    pattern, shared = pattern.double(), values.double()
    shared = shared.repeat_interleave(spec.n_heads // spec.n_kv_heads, dim=1)
    raw = torch.einsum("shk,hdk->hsd", shared, weights.W_O(layer).double())
    b_O, norm = weights.b_O(layer).double(), weights.norm("attn_post", layer)
    factor = spec.residual_scale
    if norm is None:
        ones = torch.ones(pattern.shape[1], dtype=torch.float64)
        constant = (factor * b_O).expand(len(ones), -1)
        return Terms(pattern, factor * raw, ones, constant)
    whole = torch.einsum("hqs,hsd->qd", pattern, raw) + b_O
    centred = _centred(whole, spec)
    scale = torch.rsqrt(centred.square().mean(-1) + spec.eps)
    gain = factor * norm.gain
    constant = scale[:, None] * (gain * _centred(b_O, spec)) + factor * norm.offset
    return Terms(pattern, gain * _centred(raw, spec), scale, constant)


@dataclass(frozen=True)
class OV:
    """write @ read, the gains of the norms before and behind attention folded in, in float64."""

    read: Float[Tensor, "d_head d_model"]
    """Of the stream behind the norm's scale (without its gain): what becomes the value."""
    write: Float[Tensor, "d_model d_head"]
    scale: Scale | None
    """Of the norm before attention; None where heads read the stream itself."""

    @classmethod
    def of(cls, weights: Weights, head: Head) -> OV:
        """Of a head, from the weights alone: biases are left out.

        Raises:
            UserError: a layer whose heads have no W_V or W_O.
        """
        spec = weights.spec
        read = weights.W_V(head.layer)[head.kv(spec)].double()
        write = weights.W_O(head.layer)[head.number].double()
        before, behind = (weights.norm(kind, head.layer) for kind in ("attn", "attn_post"))  # type: ignore[arg-type]
        read = read * _gain(before)
        scale = None if before is None else Scale(spec.norm == "layer", spec.eps)
        if scale and scale.centred:
            read = read - read.mean(1, keepdim=True)
        if behind is not None:
            write = _gain(behind)[:, None] * _centred(write.T, spec).T
        return cls(read, write * spec.residual_scale, scale)

    def __call__(self, x: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
        """What it writes for streams that have all of its attention."""
        x = x.double()
        return (x if self.scale is None else self.scale(x, x)) @ self.read.T @ self.write.T

    def svd(
        self, k: int
    ) -> tuple[Float[Tensor, "k d_model"], Float[Tensor, " k"], Float[Tensor, "k d_model"]]:
        """The k largest singular vectors: what is read, how much it grows, what is written. Of a
        pair the largest number of what is written is positive."""
        q_w, r_w = torch.linalg.qr(self.write)
        q_r, r_r = torch.linalg.qr(self.read.T)
        left, values, right = torch.linalg.svd(r_w @ r_r.T)
        writes, reads = (q_w @ left).T[:k], (q_r @ right.T).T[:k]
        largest = writes.gather(1, writes.abs().argmax(1, keepdim=True))
        return reads * largest.sign(), values[:k], writes * largest.sign()


def places(
    logits: Float[Tensor, "n tokens"], own: Int[Tensor, " n"]
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """How many tokens stand above each row's own one, and how many below it."""
    at = logits.gather(1, own[:, None])
    return (logits > at).sum(1), (logits < at).sum(1)


def _gain(norm: NormWeights | None) -> Tensor:
    return torch.ones(1, dtype=torch.float64) if norm is None else norm.gain


def _centred(x: Tensor, spec: ModelSpec) -> Tensor:
    """As the family's norms take it: LayerNorm without its mean, RMSNorm as it is."""
    return x - x.mean(-1, keepdim=True) if spec.norm == "layer" else x
