"""What llama.cpp calls things and does to them, by architecture: the table to extend.

The other direction of its converters (https://github.com/ggml-org/llama.cpp, `conversion/`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

Reordered = Literal["rotary", "thirds"]
"""How the rows of a tensor are stored in another order.

"rotary": within a head, the two halves that RoPE turns alternate. "thirds": all queries, then all
keys, then all values, where transformers has them head by head.
"""


@dataclass(frozen=True)
class Architecture:
    """One `general.architecture`, and the transformers model that computes the same."""

    model_type: str
    outer: dict[str, str]
    """GGUF's names of tensors outside the layers, without .weight and .bias -> transformers'."""
    layer: str
    """transformers' prefix of a layer; `{}` is its number."""
    inner: dict[str, str]
    """The same as `outer` for what follows `blk.N.` and `layer`."""
    eps: tuple[str, str] = ("attention.layer_norm_rms_epsilon", "rms_norm_eps")
    """Metadata key and config field of what the norms add."""
    config: dict[str, str] = field(default_factory=dict)
    """Further metadata keys (after the architecture's name) -> fields of config.json."""
    reordered: dict[str, Reordered] = field(default_factory=dict)
    transposed: tuple[str, ...] = ()
    """Matrices that transformers stores [in, out]."""
    norm_shift: float = 0.0
    """Added to a stored norm gain to get transformers' (Gemma stores gain - 1, GGUF the gain)."""
    rope: Literal["", "whole", "partial", "by layer"] = "whole"
    """No RoPE, on every dimension of a head, on the first ones, or another one in layers with a
    sliding window."""
    wide_from: int = 0
    """With so many layers, queries are scaled by d_model / n_heads and not by the size of a head
    (the 27B models of Gemma 2 and 3); 0: the config has no field for it."""
    windows: bool = False
    """Whether some layers have a sliding window and others have not."""
    mlp: str = "intermediate_size"
    """The config field of d_mlp; empty where it is 4 d_model."""
    heads: bool = True
    """Whether the config has its own `head_dim` and `num_key_value_heads`."""
    experts: dict[str, str] = field(default_factory=dict)
    """The same as `inner` for tensors in which all experts are stacked; `{}` is an expert."""
    always: dict[str, Any] = field(default_factory=dict)
    """Config fields that the architecture implies."""
    where: dict[str, str] = field(default_factory=dict)
    """Config flags, each on where the file has a tensor of layer 0 ("!" before it: lacks)."""


_OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_ATTENTION = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
}
_GATED = {
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_QK_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_PLAIN = Architecture("", _OUTER, "model.layers.{}.", _ATTENTION | _GATED)
_GEMMA = replace(_PLAIN, model_type="gemma", norm_shift=-1.0)
_GEMMA2 = replace(
    _GEMMA,
    model_type="gemma2",
    inner=_PLAIN.inner
    | {
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    },
    config={
        "attn_logit_softcapping": "attn_logit_softcapping",
        "final_logit_softcapping": "final_logit_softcapping",
        "attention.sliding_window": "sliding_window",
    },
    wide_from=46,
    windows=True,
)
_BIASES = {"attention_bias": "attn_q.bias", "mlp_bias": "ffn_up.bias"}
_LAYER_NORM = "attention.layer_norm_epsilon"

ARCHITECTURES: dict[str, Architecture] = {
    "llama": replace(
        _PLAIN,
        model_type="llama",
        reordered={"attn_q": "rotary", "attn_k": "rotary"},
        where=_BIASES,
    ),
    "qwen2": replace(_PLAIN, model_type="qwen2"),
    "qwen3": replace(_PLAIN, model_type="qwen3", inner=_PLAIN.inner | _QK_NORMS),
    "qwen3moe": replace(
        _PLAIN,
        model_type="qwen3_moe",
        inner=_ATTENTION | _QK_NORMS | {"ffn_gate_inp": "mlp.gate"},
        experts={
            f"ffn_{part}_exps": f"mlp.experts.{{}}.{part}_proj" for part in ("gate", "up", "down")
        },
        config={
            "expert_count": "num_experts",
            "expert_used_count": "num_experts_per_tok",
            "expert_feed_forward_length": "moe_intermediate_size",
        },
        always={"norm_topk_prob": True},
    ),
    "gemma": _GEMMA,
    "gemma2": _GEMMA2,
    "gemma3": replace(
        _GEMMA2,
        model_type="gemma3_text",
        inner=_GEMMA2.inner | _QK_NORMS,
        rope="by layer",
        wide_from=62,
    ),
    "phi3": replace(
        _PLAIN,
        model_type="phi3",
        inner=_ATTENTION
        | {
            "attn_qkv": "self_attn.qkv_proj",
            "ffn_up": "mlp.gate_up_proj",
            "ffn_down": "mlp.down_proj",
        },
        config={
            "attention.sliding_window": "sliding_window",
            "rope.scaling.original_context_length": "original_max_position_embeddings",
        },
        rope="partial",
    ),
    "starcoder2": replace(
        _PLAIN,
        model_type="starcoder2",
        inner=_ATTENTION | {"ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"},
        eps=(_LAYER_NORM, "norm_epsilon"),
        where={"use_bias": "attn_q.bias"},
    ),
    "stablelm": replace(
        _PLAIN,
        model_type="stablelm",
        eps=(_LAYER_NORM, "layer_norm_eps"),
        rope="partial",
        where={"use_qkv_bias": "attn_q.bias", "use_parallel_residual": "!ffn_norm.weight"},
    ),
    "nemotron": replace(
        _PLAIN,
        model_type="nemotron",
        eps=(_LAYER_NORM, "norm_eps"),
        norm_shift=-1.0,
        rope="partial",
        where=_BIASES,
    ),
    "gpt2": Architecture(
        "gpt2",
        {
            "token_embd": "transformer.wte",
            "position_embd": "transformer.wpe",
            "output_norm": "transformer.ln_f",
            "output": "lm_head",
        },
        "transformer.h.{}.",
        {
            "attn_norm": "ln_1",
            "attn_qkv": "attn.c_attn",
            "attn_output": "attn.c_proj",
            "ffn_norm": "ln_2",
            "ffn_up": "mlp.c_fc",
            "ffn_down": "mlp.c_proj",
        },
        eps=(_LAYER_NORM, "layer_norm_epsilon"),
        transposed=("attn_qkv", "attn_output", "ffn_up", "ffn_down"),
        rope="",
        mlp="n_inner",
        heads=False,
    ),
    "bloom": Architecture(
        "bloom",
        {
            "token_embd": "transformer.word_embeddings",
            "token_embd_norm": "transformer.word_embeddings_layernorm",
            "output_norm": "transformer.ln_f",
            "output": "lm_head",
        },
        "transformer.h.{}.",
        {
            "attn_norm": "input_layernorm",
            "attn_qkv": "self_attention.query_key_value",
            "attn_output": "self_attention.dense",
            "ffn_norm": "post_attention_layernorm",
            "ffn_up": "mlp.dense_h_to_4h",
            "ffn_down": "mlp.dense_4h_to_h",
        },
        eps=(_LAYER_NORM, "layer_norm_epsilon"),
        reordered={"attn_qkv": "thirds"},
        rope="",
        mlp="",
        heads=False,
    ),
}
"""`general.architecture` -> Architecture."""
