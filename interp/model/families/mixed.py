"""Families whose layers are not all alike: experts, linear attention, a low-rank attention."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .dense import GELU, GRANITE_SCALES, LLAMA, TINY, defaults
from .family import Experts, Family, Part

_ROUTED = {"num_experts_per_tok": 2}
_MOE = {**TINY, **_ROUTED, "num_experts": 4, "moe_intermediate_size": 24}
_LOCAL = {**TINY, **_ROUTED, "num_local_experts": 4}
_W = {"up": "w3", "gate": "w1", "down": "w2"}
_MIXTRAL_FILES = {kind: f"block_sparse_moe.experts.{{}}.{name}" for kind, name in _W.items()}
_LINEAR: dict[str, Any] = {
    **{"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8},
    **{"linear_value_head_dim": 8, "layer_types": ["linear_attention", "full_attention"]},
}
_LATENT = {
    **{name: value for name, value in TINY.items() if name not in ("head_dim",)},
    **{"q_lora_rank": 16, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4},
    **{"v_head_dim": 8, "num_key_value_heads": 4},
}
_GROUPED = {"n_routed_experts": 4, "moe_intermediate_size": 24, "n_group": 1, "topk_group": 1}


def _shared(module: str, **fields: Any) -> Experts:
    return Experts(count=("num_experts", "num_local_experts"), shared=module, **fields)


_QWEN3_MOE = replace(
    LLAMA,
    experts=Experts(count=("num_experts", "num_local_experts")),
    defaults=defaults(num_key_value_heads=4, moe_intermediate_size=768),
    tiny=_MOE,
)
_QWEN2_MOE = replace(
    LLAMA,
    experts=_shared("mlp.shared_expert", shared_width="shared_expert_intermediate_size"),
    defaults=defaults(
        num_key_value_heads=16, moe_intermediate_size=1408, shared_expert_intermediate_size=5632
    ),
    tiny={**_MOE, "shared_expert_intermediate_size": 40},
)
_MIXTRAL = replace(
    LLAMA,
    experts=Experts(count=("num_local_experts",), width="intermediate_size", alone=_MIXTRAL_FILES),
    defaults=defaults(rms_norm_eps=1e-5, num_key_value_heads=8),
    tiny=_LOCAL,
)
_PHIMOE = replace(_MIXTRAL, norm="layer")
_OLMOE = replace(
    LLAMA,
    experts=Experts(count=("num_experts", "num_local_experts"), width="intermediate_size"),
    defaults=defaults(rms_norm_eps=1e-5),
    tiny={**_MOE},
)
_GPT_OSS = replace(
    LLAMA,
    experts=Experts(
        count=("num_local_experts",),
        width="intermediate_size",
        gate=Part("mlp.experts.gate_up_proj", 0, 2, interleaved=True),
        up=Part("mlp.experts.gate_up_proj", 1, 2, interleaved=True),
        transposed=True,
    ),
    defaults=defaults(rms_norm_eps=1e-5, num_key_value_heads=8, head_dim=64),
    tiny=_LOCAL,
)
_GRANITEMOE = replace(
    LLAMA,
    **GRANITE_SCALES,
    mlp="block_sparse_moe",
    experts=Experts(
        count=("num_local_experts",),
        width="intermediate_size",
        gate=Part("block_sparse_moe.experts.gate_up_proj", 0, 2),
        up=Part("block_sparse_moe.experts.gate_up_proj", 1, 2),
        down="block_sparse_moe.experts.down_proj",
        renamed={
            "block_sparse_moe.experts.gate_up_proj": "block_sparse_moe.input_linear.weight",
            "block_sparse_moe.experts.down_proj": "block_sparse_moe.output_linear.weight",
        },
    ),
    tiny={
        **_LOCAL,
        **{"residual_multiplier": 0.3, "logits_scaling": 4.0, "embedding_multiplier": 5.0},
        "attention_multiplier": 0.2,
    },
)
_GLM4_MOE = replace(
    LLAMA,
    experts=replace(
        _shared("mlp.shared_experts", shared_count="n_shared_experts"),
        count=("n_routed_experts", "num_local_experts"),
    ),
    defaults=defaults(
        rms_norm_eps=1e-5, num_key_value_heads=8, moe_intermediate_size=1408, n_shared_experts=1
    ),
    tiny={**TINY, **_ROUTED, **_GROUPED, "first_k_dense_replace": 1},
)
_DEEPSEEK = replace(
    _GLM4_MOE,
    value="",
    n_kv_heads="",
    d_head="v_head_dim",
    no_heads="its values come of a compressed stream",
    defaults=defaults(moe_intermediate_size=2048, n_shared_experts=1, v_head_dim=128),
    tiny={**_LATENT, **_ROUTED, **_GROUPED, "n_shared_experts": 2, "first_k_dense_replace": 1},
)
_ERNIE_MOE = replace(
    LLAMA,
    experts=replace(
        _shared("mlp.shared_experts", shared_count="moe_num_shared_experts"),
        count=("moe_num_experts",),
    ),
    defaults=defaults(
        rms_norm_eps=1e-5, tie_word_embeddings=True, num_key_value_heads=4,
        moe_intermediate_size=1536, moe_num_shared_experts=2,
    ),
    tiny={
        **TINY,
        **{"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 24},
        **{"moe_num_shared_experts": 1, "moe_layer_start_index": 1},
    },
)  # fmt: skip
_LLAMA4 = replace(
    LLAMA,
    mlp="feed_forward",
    flat_mlp=True,
    up=Part("feed_forward.up_proj"),
    gate=Part("feed_forward.gate_proj"),
    down="feed_forward.down_proj",
    d_mlp=("intermediate_size_mlp",),
    experts=Experts(
        count=("num_local_experts",),
        width="intermediate_size",
        gate=Part("feed_forward.experts.gate_up_proj", 0, 2),
        up=Part("feed_forward.experts.gate_up_proj", 1, 2),
        down="feed_forward.experts.down_proj",
        transposed=True,
        shared="feed_forward.shared_expert",
    ),
    defaults=defaults(
        rms_norm_eps=1e-5, num_key_value_heads=8, head_dim=128, intermediate_size_mlp=16384
    ),
    tiny={
        **TINY,
        **{"num_local_experts": 4, "num_experts_per_tok": 1, "intermediate_size_mlp": 40},
        "interleave_moe_layer_step": 2,
    },
)
_QWEN3_5 = replace(
    LLAMA,
    attention=("self_attn", "linear_attn"),
    gated_heads=True,
    gain_offset=1.0,
    defaults=defaults(num_key_value_heads=4, head_dim=256),
    tiny={**TINY, **_LINEAR},
)
_QWEN3_NEXT = replace(
    _QWEN3_5,
    experts=_QWEN2_MOE.experts,
    defaults=defaults(
        num_key_value_heads=2, head_dim=256, moe_intermediate_size=512,
        shared_expert_intermediate_size=512,
    ),
    tiny={**_QWEN2_MOE.tiny, **_LINEAR},
)  # fmt: skip
_QWEN3_5_MOE = replace(
    _QWEN3_NEXT, tiny={k: v for k, v in _QWEN3_NEXT.tiny.items() if k != "intermediate_size"}
)
_GEMMA4 = replace(
    LLAMA,
    activation="hidden_activation",
    mlp_norm="pre_feedforward_layernorm",
    attn_post_norm="post_attention_layernorm",
    mlp_post_norm="post_feedforward_layernorm",
    softcap="final_logit_softcapping",
    value="",
    output="",
    no_heads="its layers differ in the size of their heads",
    defaults={
        **{"hidden_activation": GELU, "rms_norm_eps": 1e-6, "tie_word_embeddings": True},
        "final_logit_softcapping": None,
    },
    tiny={
        **TINY,
        **{"global_head_dim": 8, "num_kv_shared_layers": 0, "hidden_size_per_layer_input": 0},
        "layer_types": ["sliding_attention", "full_attention"],
    },
)
_GEMMA3N = replace(
    _GEMMA4,
    no_sites="its layers carry four streams side by side (AltUp), not one",
    defaults={**_GEMMA4.defaults, "final_logit_softcapping": 30.0},
    tiny={
        **TINY,
        **{"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 211},
        **{"num_kv_shared_layers": 0, "layer_types": ["sliding_attention", "full_attention"]},
        "activation_sparsity_pattern": [0.0, 0.0],
    },
)

MIXED: dict[str, Family] = {
    "qwen3_moe": _QWEN3_MOE,
    "qwen2_moe": _QWEN2_MOE,
    "mixtral": _MIXTRAL,
    "phimoe": _PHIMOE,
    "olmoe": _OLMOE,
    "gpt_oss": _GPT_OSS,
    "granitemoe": _GRANITEMOE,
    "glm4_moe": _GLM4_MOE,
    "deepseek_v3": _DEEPSEEK,
    "ernie4_5_moe": _ERNIE_MOE,
    "llama4_text": _LLAMA4,
    "qwen3_5_text": _QWEN3_5,
    "qwen3_5_moe_text": _QWEN3_5_MOE,
    "qwen3_next": _QWEN3_NEXT,
    "gemma4_text": _GEMMA4,
    "gemma3n_text": _GEMMA3N,
}
