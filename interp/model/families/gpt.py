"""Families in the manner of GPT: LayerNorms with offsets, biases, mostly no gate."""

from __future__ import annotations

from dataclasses import replace

from .dense import GELU, TINY, layer_norms
from .family import Family, Part, Variant

_SIZES = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 211, "n_positions": 64}
_GPT2 = Family(
    layer="transformer.h.{}",
    embed="transformer.wte",
    final_norm="transformer.ln_f",
    attn_norm="ln_1",
    attention=("attn",),
    value="attn.c_attn",
    value_rows="last",
    output="attn.c_proj",
    mlp_norm="ln_2",
    up=Part("mlp.c_fc"),
    down="mlp.c_proj",
    norm="layer",
    transposed=True,
    d_mlp=("n_inner",),
    activation="activation_function",
    eps="layer_norm_epsilon",
    defaults={
        **{"activation_function": "gelu_new", "layer_norm_epsilon": 1e-5},
        "tie_word_embeddings": True,
    },
    tiny=_SIZES,
)
_BIGCODE = replace(
    _GPT2,
    transposed=False,
    value_rows="by head",
    defaults={**_GPT2.defaults, "activation_function": GELU, "multi_query": True},
    variants=(
        Variant("multi_query", True, {"value_rows": "last", "fixed": {"num_key_value_heads": 1}}),
    ),
)
_GPT_NEO = replace(
    _GPT2,
    value="attn.attention.v_proj",
    value_rows="all",
    output="attn.attention.out_proj",
    transposed=False,
    d_mlp=("intermediate_size",),
    tiny={
        **{"hidden_size": 32, "num_layers": 2, "num_heads": 4, "vocab_size": 211},
        **{"attention_types": [[["global", "local"], 1]], "max_position_embeddings": 64},
    },
)
_GPTJ = replace(
    _GPT2,
    value="attn.v_proj",
    value_rows="all",
    output="attn.out_proj",
    mlp_norm="ln_1",
    parallel=True,
    up=Part("mlp.fc_in"),
    down="mlp.fc_out",
    transposed=False,
    defaults={**_GPT2.defaults, "tie_word_embeddings": False},
    tiny={**_GPT2.tiny, "rotary_dim": 4},
)
_GPT_NEOX = Family(
    layer="gpt_neox.layers.{}",
    embed="gpt_neox.embed_in",
    head=("lm_head", "embed_out"),
    final_norm="gpt_neox.final_layer_norm",
    attn_norm="input_layernorm",
    attention=("attention",),
    value="attention.query_key_value",
    value_rows="by head",
    output="attention.dense",
    mlp_norm="post_attention_layernorm",
    up=Part("mlp.dense_h_to_4h"),
    down="mlp.dense_4h_to_h",
    parallel=True,
    variants=(Variant("use_parallel_residual", False, {"parallel": False}),),
    **layer_norms(hidden_act="gelu", use_parallel_residual=True),
    tiny={k: v for k, v in TINY.items() if k not in ("num_key_value_heads", "head_dim")},
)
_ONE_HEAD = {"fixed": {"num_kv_heads": 1}}
_FALCON = Family(
    layer="transformer.h.{}",
    embed="transformer.word_embeddings",
    final_norm="transformer.ln_f",
    attn_norm="input_layernorm",
    attention=("self_attention",),
    value="self_attention.query_key_value",
    value_rows="by head",
    output="self_attention.dense",
    mlp_norm="input_layernorm",
    up=Part("mlp.dense_h_to_4h"),
    down="mlp.dense_4h_to_h",
    norm="layer",
    parallel=True,
    n_kv_heads="num_kv_heads",
    d_head="",
    d_mlp=("ffn_hidden_size",),
    activation="activation",
    eps="layer_norm_epsilon",
    defaults={
        **{"activation": "gelu", "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True},
        **{"multi_query": True, "parallel_attn": True, "new_decoder_architecture": False},
        "num_ln_in_parallel_attn": None,
    },
    variants=(
        Variant("multi_query", True, _ONE_HEAD),
        Variant(
            "parallel_attn", False, {"parallel": False, "mlp_norm": "post_attention_layernorm"}
        ),
        Variant(
            "new_decoder_architecture",
            True,
            {"attn_norm": "ln_attn", "mlp_norm": "ln_mlp", "parallel": True, "fixed": {}},
        ),
        Variant(
            "num_ln_in_parallel_attn",
            1,
            {"attn_norm": "input_layernorm", "mlp_norm": "input_layernorm"},
        ),
    ),
    tiny={
        **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
        **{"vocab_size": 211, "max_position_embeddings": 64},
    },
)
_BLOOM = replace(
    _FALCON,
    embed_norm="transformer.word_embeddings_layernorm",
    mlp_norm="post_attention_layernorm",
    attn_out="self_attention.dense",
    mlp_out="mlp.dense_4h_to_h",
    parallel=False,
    n_kv_heads="",
    d_mlp=(),
    activation="hidden_act",
    defaults={
        **{"layer_norm_epsilon": 1e-5, "tie_word_embeddings": True, "slow_but_exact": False},
        "apply_residual_connection_post_layernorm": False,
    },
    fixed={"hidden_act": GELU},
    variants=(
        Variant(
            "apply_residual_connection_post_layernorm",
            True,
            unfit="its stream starts anew from a norm's output at every step",
        ),
        Variant("slow_but_exact", True, unfit="it computes its projections in slices: unset it"),
    ),
    tiny={"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 211},
)
_OPT = Family(
    layer="model.decoder.layers.{}",
    embed="model.decoder.embed_tokens",
    final_norm="model.decoder.final_layer_norm",
    attn_norm="self_attn_layer_norm",
    value="self_attn.v_proj",
    output="self_attn.out_proj",
    mlp="",
    mlp_out="fc2",
    mlp_norm="final_layer_norm",
    up=Part("fc1"),
    down="fc2",
    norm="layer",
    flat_mlp=True,
    n_kv_heads="",
    d_head="",
    d_mlp=("ffn_dim",),
    embed_width="word_embed_proj_dim",
    activation="activation_function",
    eps="norm_eps",
    defaults={
        **{"activation_function": "relu", "tie_word_embeddings": True, "ffn_dim": 3072},
        **{"do_layer_norm_before": True, "layer_norm_elementwise_affine": True},
        "_remove_final_layer_norm": False,
    },
    fixed={"norm_eps": 1e-5},
    variants=(
        Variant("layer_norm_elementwise_affine", False, {"norm_gain": False}),
        Variant("do_layer_norm_before", False, unfit="it normalises the stream itself"),
        Variant("_remove_final_layer_norm", True, unfit="it has no final norm"),
    ),
    tiny={
        **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48},
        **{"vocab_size": 211, "max_position_embeddings": 64, "word_embed_proj_dim": 32},
    },
)

GPT: dict[str, Family] = {
    "gpt2": _GPT2,
    "gpt_neo": _GPT_NEO,
    "gpt_neox": _GPT_NEOX,
    "gpt_bigcode": _BIGCODE,
    "gptj": _GPTJ,
    "falcon": _FALCON,
    "bloom": _BLOOM,
    "opt": _OPT,
}
