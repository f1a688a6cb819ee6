"""Attention with the pattern that the references make: affine in the values.

`F.scaled_dot_product_attention` is one step. `F.multi_head_attention_forward`, which
`nn.MultiheadAttention` and with it torch's transformer layers call, is written out in calls that
are followed one by one. Their fast path, one call on the whole layer, is not taken: `interpret`
turns it off for the plain network too, where it gives 0 at padded places (a nested tensor).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from .tape import Dual, Tape, duals, references


def attention(
    tape: Tape,
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **options: Any,
) -> tuple[list[Dual], Any]:
    """`F.scaled_dot_product_attention` of the values, with the pattern of the references."""
    if dropout_p:
        raise UserError(f"no rule for {tape.where('attention')} in training mode")
    if not isinstance(value, Dual):
        raise UserError(f"no rule for {tape.where('attention')} with constant values")
    value.activation("attention's values")
    q, k, mask = references((query, key, attn_mask))
    # what attention makes of unit vectors is its pattern
    units = torch.eye(k.shape[-2], dtype=k.dtype, device=k.device).expand(*k.shape[:-1], -1)
    weights = F.scaled_dot_product_attention(q, k, units, mask, 0.0, is_causal, **options)
    groups = q.shape[-3] // value.shape[-3] if options.get("enable_gqa") else 1

    def run(v: Tensor) -> Tensor:
        mixed: Tensor = weights @ (v.repeat_interleave(groups, -3) if groups > 1 else v)
        return mixed

    return [value], run


def multi_head_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """`F.multi_head_attention_forward`, [tokens, batch, d] or [tokens, d], whose arguments these
    are."""
    if training and dropout_p:
        tape = duals((query, key, value))[0].tape
        raise UserError(f"no rule for {tape.where('attention')} in training mode")
    alone = query.ndim == 2
    inputs = [x.unsqueeze(1) if alone else x for x in (query, key, value)]
    tokens, batch, _ = inputs[0].shape
    packed = None if use_separate_proj_weight else in_proj_weight
    weights = (q_proj_weight, k_proj_weight, v_proj_weight) if packed is None else packed.chunk(3)
    biases = (None, None, None) if in_proj_bias is None else in_proj_bias.chunk(3)
    q, k, v = (F.linear(*one) for one in zip(inputs, weights, biases, strict=True))  # type: ignore[arg-type]
    if bias_k is not None and bias_v is not None:
        k = torch.cat([k, bias_k.expand(1, batch, -1)])
        v = torch.cat([v, bias_v.expand(1, batch, -1)])
    q, k, v = (x.reshape(len(x), batch * num_heads, -1).transpose(0, 1) for x in (q, k, v))
    k = k if static_k is None else static_k
    v = v if static_v is None else static_v
    if add_zero_attn:
        k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(1, 2)
    scores = scores.reshape(batch, num_heads, tokens, -1)
    more = scores.shape[-1] - len(key)  # keys that no mask speaks of
    if attn_mask is not None:
        heads = attn_mask if attn_mask.ndim == 2 else attn_mask.view(batch, num_heads, tokens, -1)
        scores = scores + F.pad(_additive(heads, scores), (0, more))
    if key_padding_mask is not None:
        padding = _additive(key_padding_mask.view(batch, 1, 1, -1), scores)
        scores = scores + F.pad(padding, (0, more))
    pattern = scores.softmax(-1)
    mixed = pattern @ v.reshape(batch, num_heads, *v.shape[1:])
    out = F.linear(mixed.permute(2, 0, 1, 3).flatten(2), out_proj_weight, out_proj_bias)
    if average_attn_weights:
        pattern = pattern.mean(1)
    if alone:
        out, pattern = out.squeeze(1), pattern.squeeze(0)
    return out, pattern if need_weights else None


def _additive(mask: Tensor, scores: Tensor) -> Tensor:
    """A mask as what is added to the scores: a boolean one forbids where it is true."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=scores.dtype).masked_fill(mask, -torch.inf)
