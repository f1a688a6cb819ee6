"""Where each model family keeps its weights: the one table to extend for a new architecture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from ..errors import UserError


@dataclass(frozen=True)
class Family:
    """Tensor names of a family, and so those of the modules; `{}` stands for the layer.

    Names are those of the causal-LM class; the base class's checkpoints lack `prefix`, and
    multi-modal ones put another before it. Both are found by looking (`Weights`).
    """

    prefix: str
    embed: str
    final_norm: str
    mlp_norm: str
    up: str
    down: str
    attn_norm: str
    value: str
    output: str
    head: str = "lm_head.weight"
    gate: str = ""
    """Empty in a family without gates, as are the next two in most."""
    attn_post_norm: str = ""
    mlp_post_norm: str = ""
    """Norms through which Gemma 2 and 3 pass what attention and MLP add to the stream."""
    activation: tuple[str, str] = ("hidden_act", "silu")
    """Its name in config.json, and the one that transformers takes where it is not given."""
    value_rows: Literal["all", "last third", "by head"] = "all"
    """Which outputs of `value` are values: GPT-2 computes queries, keys and values side by side,
    GPT-NeoX so for each head."""
    norm: Literal["rms", "layer"] = "rms"
    gain_offset: float = 0.0
    """Added to a stored norm gain to get the effective one (Gemma stores gain - 1)."""
    transposed: bool = False
    """Whether matrices are stored [in, out] (GPT-2's Conv1D) rather than [out, in]."""


_LLAMA = Family(
    prefix="model.",
    embed="model.embed_tokens.weight",
    final_norm="model.norm.weight",
    mlp_norm="model.layers.{}.post_attention_layernorm.weight",
    up="model.layers.{}.mlp.up_proj.weight",
    gate="model.layers.{}.mlp.gate_proj.weight",
    down="model.layers.{}.mlp.down_proj.weight",
    attn_norm="model.layers.{}.input_layernorm.weight",
    value="model.layers.{}.self_attn.v_proj.weight",
    output="model.layers.{}.self_attn.o_proj.weight",
)
_GELU = "gelu_pytorch_tanh"
_GEMMA = replace(_LLAMA, gain_offset=1.0, activation=("hidden_act", _GELU))
_GEMMA2 = replace(
    _GEMMA,
    activation=("hidden_activation", _GELU),
    mlp_norm="model.layers.{}.pre_feedforward_layernorm.weight",
    attn_post_norm="model.layers.{}.post_attention_layernorm.weight",
    mlp_post_norm="model.layers.{}.post_feedforward_layernorm.weight",
)
_GPT2 = Family(
    prefix="transformer.",
    embed="transformer.wte.weight",
    final_norm="transformer.ln_f.weight",
    mlp_norm="transformer.h.{}.ln_2.weight",
    up="transformer.h.{}.mlp.c_fc.weight",
    down="transformer.h.{}.mlp.c_proj.weight",
    attn_norm="transformer.h.{}.ln_1.weight",
    value="transformer.h.{}.attn.c_attn.weight",
    output="transformer.h.{}.attn.c_proj.weight",
    activation=("activation_function", "gelu_new"),
    value_rows="last third",
    norm="layer",
    transposed=True,
)
_GPT_NEO = replace(
    _GPT2,
    value="transformer.h.{}.attn.attention.v_proj.weight",
    output="transformer.h.{}.attn.attention.out_proj.weight",
    value_rows="all",
    transposed=False,
)
_GPT_NEOX = Family(
    prefix="gpt_neox.",
    embed="gpt_neox.embed_in.weight",
    head="embed_out.weight",
    final_norm="gpt_neox.final_layer_norm.weight",
    mlp_norm="gpt_neox.layers.{}.post_attention_layernorm.weight",
    up="gpt_neox.layers.{}.mlp.dense_h_to_4h.weight",
    down="gpt_neox.layers.{}.mlp.dense_4h_to_h.weight",
    attn_norm="gpt_neox.layers.{}.input_layernorm.weight",
    value="gpt_neox.layers.{}.attention.query_key_value.weight",
    output="gpt_neox.layers.{}.attention.dense.weight",
    activation=("hidden_act", "gelu"),
    value_rows="by head",
    norm="layer",
)

FAMILIES: dict[str, Family] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), _LLAMA),
    "gemma": _GEMMA,
    **dict.fromkeys(("gemma2", "gemma3_text"), _GEMMA2),
    "gpt2": _GPT2,
    "gpt_neo": _GPT_NEO,
    "gpt_neox": _GPT_NEOX,
}
"""`model_type` of config.json -> Family."""


@dataclass(frozen=True)
class ModelSpec:
    """Sizes of a model, under the field's usual names."""

    model_type: str
    n_layers: int
    d_model: int
    d_mlp: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_vocab: int
    norm: str
    activation: str
    tied: bool
    eps: float
    """What the norms add to the mean square before its root."""
    parallel: bool
    """Whether the MLP reads the stream before the layer's attention (GPT-NeoX)."""
    softcap: float = 0.0
    """Logits are softcap * tanh(logits / softcap) (Gemma 2); 0: they are not capped."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of neuron vector the model has."""
        return ("up", "gate", "down") if FAMILIES[self.model_type].gate else ("up", "down")


def read_spec(config: dict[str, Any]) -> ModelSpec:
    """The spec from the content of config.json.

    Raises:
        UserError: an unknown family, or a field that is missing.
    """
    config = _language_model(config)
    model_type = config["model_type"]
    family = FAMILIES[model_type]
    d_model = _size(config, "hidden_size", "n_embd")
    n_heads = _size(config, "num_attention_heads", "n_head", "num_heads")
    # transformers ties embeddings where config.json does not say, except in these families
    untied_by_default = model_type in ("llama", "mistral", "qwen2", "qwen3", "gpt_neox")
    eps_names = ("rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps")
    return ModelSpec(
        model_type=model_type,
        n_layers=_size(config, "num_hidden_layers", "n_layer", "num_layers"),
        d_model=d_model,
        d_mlp=_size(config, "intermediate_size", "n_inner", default=4 * d_model),
        n_heads=n_heads,
        n_kv_heads=_size(config, "num_key_value_heads", default=n_heads),
        d_head=_size(config, "head_dim", default=d_model // n_heads),
        d_vocab=_size(config, "vocab_size"),
        norm=family.norm,
        activation=_activation(config, family),
        tied=_flag(config, "tie_word_embeddings", not untied_by_default),
        # the defaults are transformers' own for these families
        eps=_number(config, *eps_names, default=1e-6 if family.norm == "rms" else 1e-5),
        parallel=model_type == "gpt_neox" and _flag(config, "use_parallel_residual", True),
        softcap=_number(config, "final_logit_softcapping", default=0.0),
    )


def _language_model(config: dict[str, Any]) -> dict[str, Any]:
    """The config of a family that is known; of a multi-modal model, its language model's."""
    if not isinstance(config, dict) or not isinstance(config.get("text_config", {}), dict):
        raise UserError("config.json is not a model's config: fetch it again")
    if "text_config" in config:
        kept = [n for n in ("tie_word_embeddings", "quantization_config") if n in config]
        config = config["text_config"] | {name: config[name] for name in kept}
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise UserError(
            f"model family {model_type!r} is not known (known: {', '.join(FAMILIES)}); to add it, "
            "give FAMILIES in interp/model/families.py its tensor names"
        )
    if config.get("quantization_config"):
        raise UserError("this checkpoint is quantised: dequantise it to float16 or float32 first")
    return config


def _given(config: dict[str, Any], names: tuple[str, ...], default: Any) -> tuple[str, Any]:
    """The first of a field's names that config.json gives, and its value; null is not given."""
    name = next((n for n in names if config.get(n) is not None), "")
    return name, config[name] if name else default


def _size(config: dict[str, Any], *names: str, default: int = 0) -> int:
    name, value = _given(config, names, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        what = f"'{name}' is {value!r}" if name else f"'{names[0]}' is missing"
        raise UserError(f"config.json of this {config['model_type']} model is damaged: {what}")
    return value


def _flag(config: dict[str, Any], name: str, default: bool) -> bool:
    value = config.get(name, default)
    if not isinstance(value, bool):
        raise UserError(f"config.json is damaged: '{name}' is {value!r}")
    return value


def _number(config: dict[str, Any], *names: str, default: float) -> float:
    name, value = _given(config, names, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:
        raise UserError(f"config.json is damaged: '{name}' is {value!r}")
    return float(value)


def _activation(config: dict[str, Any], family: Family) -> str:
    name, default = family.activation
    given = str(config.get(name) or default)
    # the first releases of Gemma say "gelu" and mean its approximation; transformers knows it too
    return _GELU if family is _GEMMA and given == "gelu" else given
