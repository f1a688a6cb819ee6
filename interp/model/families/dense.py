"""Families in the manner of LLaMA, with one MLP a layer: `model_type` of config.json -> Family."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .family import Family, Part, Variant

TINY: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 211,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
"""Sizes of the tiny models that tests and `interp models families --check` make."""
GELU = "gelu_pytorch_tanh"
FUSED: dict[str, Any] = {
    "gate": Part("mlp.gate_up_proj", 0, 2),
    "up": Part("mlp.gate_up_proj", 1, 2),
}


def defaults(**changes: Any) -> dict[str, Any]:
    """What most families take where config.json is silent, changed."""
    usual = {"hidden_act": "silu", "rms_norm_eps": 1e-6, "tie_word_embeddings": False}
    return {**usual, **changes}


def layer_norms(**changes: Any) -> dict[str, Any]:
    """The fields of an entry with LayerNorms."""
    usual = {"hidden_act": "silu", "layer_norm_eps": 1e-5, "tie_word_embeddings": False}
    return {"norm": "layer", "eps": "layer_norm_eps", "defaults": {**usual, **changes}}


def sizes(d_model: int, d_mlp: int, n_layers: int, n_heads: int, d_vocab: int) -> dict[str, int]:
    """Transformers' sizes where the config of a text model inside another leaves them out."""
    return {
        **{"hidden_size": d_model, "intermediate_size": d_mlp, "num_hidden_layers": n_layers},
        **{"num_attention_heads": n_heads, "vocab_size": d_vocab},
    }


LLAMA = Family(
    layer="model.layers.{}",
    embed="model.embed_tokens",
    final_norm="model.norm",
    attn_norm="input_layernorm",
    value="self_attn.v_proj",
    output="self_attn.o_proj",
    mlp_norm="post_attention_layernorm",
    up=Part("mlp.up_proj"),
    gate=Part("mlp.gate_proj"),
    down="mlp.down_proj",
    defaults=defaults(**sizes(4096, 11008, 32, 32, 32000)),
    tiny=TINY,
)
_QWEN_SIZES = sizes(4096, 22016, 32, 32, 151936)
_QWEN2 = replace(LLAMA, defaults=defaults(num_key_value_heads=32, **_QWEN_SIZES))
_QWEN2_VL = replace(
    LLAMA,
    inside="found inside qwen2_vl and qwen2_5_vl only: see there",
    defaults=defaults(
        rms_norm_eps=1e-5, num_key_value_heads=8, **sizes(8192, 29568, 80, 64, 152064)
    ),
)
_QWEN3 = replace(LLAMA, defaults=defaults(num_key_value_heads=32, head_dim=128, **_QWEN_SIZES))
_MISTRAL = replace(
    LLAMA, defaults=defaults(num_key_value_heads=8, **sizes(4096, 14336, 32, 32, 32000))
)
_GEMMA = replace(
    LLAMA,
    gain_offset=1.0,
    defaults=defaults(
        hidden_act=GELU,
        tie_word_embeddings=True,
        num_key_value_heads=16,
        head_dim=256,
        **sizes(3072, 24576, 28, 16, 256000),
    ),
    legacy_activation={"gelu": GELU},
)
_GEMMA3 = replace(
    _GEMMA,
    activation="hidden_activation",
    legacy_activation={},
    mlp_norm="pre_feedforward_layernorm",
    attn_post_norm="post_attention_layernorm",
    mlp_post_norm="post_feedforward_layernorm",
    softcap="final_logit_softcapping",
    defaults={
        **{"hidden_activation": GELU, "rms_norm_eps": 1e-6, "tie_word_embeddings": True},
        **{"num_key_value_heads": 4, "head_dim": 256, "final_logit_softcapping": None},
        **sizes(2304, 9216, 26, 8, 262208),
    },
)
_GEMMA2 = replace(
    _GEMMA3,
    defaults={**_GEMMA3.defaults, "final_logit_softcapping": 30.0, "vocab_size": 256000},
)
_PHI3 = replace(
    LLAMA,
    **FUSED,
    value="self_attn.qkv_proj",
    value_rows="last",
    defaults=defaults(rms_norm_eps=1e-5),
)
_OLMO = replace(
    LLAMA,
    norm="layer",
    norm_gain=False,
    eps="norm_eps",
    defaults={"hidden_act": "silu", "tie_word_embeddings": False},
    fixed={"norm_eps": 1e-5},
)
_OLMO2 = replace(
    LLAMA,
    attn_norm="",
    mlp_norm="",
    attn_post_norm="post_attention_layernorm",
    mlp_post_norm="post_feedforward_layernorm",
    defaults=defaults(rms_norm_eps=1e-5),
)
_EXAONE4 = replace(_OLMO2, defaults=defaults(rms_norm_eps=1e-5, num_key_value_heads=32))
_SMOLLM3 = replace(LLAMA, defaults=defaults(tie_word_embeddings=True, num_key_value_heads=4))
GRANITE_SCALES: dict[str, Any] = {
    "residual_scale": "residual_multiplier",
    "logit_divisor": "logits_scaling",
    "defaults": defaults(residual_multiplier=1.0, logits_scaling=1.0),
}
_GRANITE = replace(
    LLAMA,
    **GRANITE_SCALES,
    tiny={
        **TINY,
        **{"residual_multiplier": 0.3, "logits_scaling": 4.0, "embedding_multiplier": 5.0},
        "attention_multiplier": 0.2,
    },
)
_COHERE = replace(
    LLAMA,
    **layer_norms(tie_word_embeddings=True, logit_scale=0.0625),
    mlp_norm="input_layernorm",
    parallel=True,
    logit_scale="logit_scale",
)
_COHERE2 = replace(
    _COHERE, d_head="", defaults={**_COHERE.defaults, **sizes(8192, 22528, 40, 64, 256000)}
)
_STARCODER2 = replace(
    LLAMA,
    norm="layer",
    eps="norm_epsilon",
    gate=None,
    up=Part("mlp.c_fc"),
    down="mlp.c_proj",
    defaults={
        **{"hidden_act": GELU, "norm_epsilon": 1e-5, "tie_word_embeddings": True},
        "num_key_value_heads": 2,
    },
)
_STABLELM = replace(
    LLAMA,
    **layer_norms(num_key_value_heads=32, use_parallel_residual=False),
    variants=(
        Variant("use_parallel_residual", True, {"parallel": True, "mlp_norm": "input_layernorm"}),
    ),
)
_PHI = replace(
    LLAMA,
    **layer_norms(hidden_act="gelu_new"),
    final_norm="model.final_layernorm",
    mlp_norm="input_layernorm",
    parallel=True,
    gate=None,
    up=Part("mlp.fc1"),
    down="mlp.fc2",
    output="self_attn.dense",
)
_GLM = replace(
    LLAMA,
    **FUSED,
    defaults=defaults(rms_norm_eps=1.5625e-07, num_key_value_heads=2, head_dim=128),
)
_GLM4 = replace(_GLM, attn_post_norm="post_self_attn_layernorm", mlp_post_norm="post_mlp_layernorm")
_MINISTRAL3 = replace(
    LLAMA, defaults=defaults(rms_norm_eps=1e-5, num_key_value_heads=8, head_dim=128)
)
_SEED = replace(LLAMA, defaults=defaults(num_key_value_heads=8, head_dim=128))
_ERNIE = replace(
    LLAMA,
    defaults=defaults(
        rms_norm_eps=1e-5, tie_word_embeddings=True, num_key_value_heads=2, head_dim=128
    ),
)
_HELIUM = replace(LLAMA, defaults=defaults(rms_norm_eps=1e-8, num_key_value_heads=20, head_dim=128))
_NEMOTRON = replace(
    LLAMA,
    norm="layer",
    eps="norm_eps",
    gain_offset=1.0,
    gate=None,
    defaults={"hidden_act": "relu2", "norm_eps": 1e-5, "tie_word_embeddings": False},
)
_ARCEE = replace(LLAMA, gate=None, defaults=defaults(hidden_act="relu2", rms_norm_eps=1e-5))

DENSE: dict[str, Family] = {
    "llama": LLAMA,
    "mistral": _MISTRAL,
    "qwen2": _QWEN2,
    **dict.fromkeys(("qwen2_vl_text", "qwen2_5_vl_text"), _QWEN2_VL),
    "qwen3": _QWEN3,
    "gemma": _GEMMA,
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA3,
    "phi3": _PHI3,
    "olmo": _OLMO,
    "olmo2": _OLMO2,
    "olmo3": _OLMO2,
    "smollm3": _SMOLLM3,
    "granite": _GRANITE,
    "cohere": _COHERE,
    "cohere2": _COHERE2,
    "starcoder2": _STARCODER2,
    "stablelm": _STABLELM,
    "phi": _PHI,
    "glm": _GLM,
    "glm4": _GLM4,
    "ministral": _MISTRAL,
    "ministral3": _MINISTRAL3,
    "seed_oss": _SEED,
    "nemotron": _NEMOTRON,
    "helium": _HELIUM,
    "arcee": _ARCEE,
    "exaone4": _EXAONE4,
    "ernie4_5": _ERNIE,
}
