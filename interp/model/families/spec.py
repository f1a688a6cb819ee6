"""ModelSpec: sizes of a model and its family's entry, from the content of config.json."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from ...errors import UserError
from .family import Experts, Family
from .table import FAMILIES, UNFIT
from .wrappers import WRAPPERS, Wrapper

if TYPE_CHECKING:
    from torch import Tensor

Config = dict[str, Any]
BOTH_WAYS = "it reads a text in both directions, each token with those behind it"
"""Why an encoder in a causal model's clothes (EmbeddingGemma) is no subject."""


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
    logit_scale: float = 1.0
    """What `W_U norm(x)` is multiplied by before any cap (Cohere, Granite)."""
    residual_scale: float = 1.0
    """What attention and MLP give, times this, is added to the stream (Granite)."""
    n_experts: int = 0
    """Experts of a layer that has any; 0 in a model without."""
    d_expert: int = 0
    """Neurons of an expert."""
    d_shared: int = 0
    """Neurons of the expert that every token passes, where there is one."""
    family: Family = field(kw_only=True, repr=False, compare=False)
    """What the model calls its parts; its variants are settled."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of neuron vector the model has."""
        return ("up", "gate", "down") if self.family.gate else ("up", "down")

    @property
    def facts(self) -> dict[str, Any]:
        """The sizes, in plain JSON values."""
        names = (each.name for each in fields(self) if each.name != "family")
        return {name: getattr(self, name) for name in names}

    def capped(self, logits: Tensor) -> Tensor:
        """What the model makes of `W_U norm(x)`: the logits it gives, scaled and capped."""
        scaled = logits * self.logit_scale
        return self.softcap * (scaled / self.softcap).tanh() if self.softcap else scaled


def read_spec(config: Config) -> ModelSpec:
    """The spec from the content of config.json.

    Raises:
        UserError: an unknown family, or a field that is missing.
    """
    wrapper = WRAPPERS.get(str(config.get("model_type")) if isinstance(config, dict) else "")
    config = _language_model(config)
    model_type = config["model_type"]
    config = {**FAMILIES[model_type].defaults, **config}
    family = FAMILIES[model_type].with_variants(config)
    if wrapper and wrapper.no_sites:
        family = replace(family, no_sites=wrapper.no_sites)
    elif _both_ways(config):
        family = replace(family, no_sites=BOTH_WAYS)
    config |= family.fixed
    if reason := family.unfit(config):
        raise UserError(f"this {model_type} model cannot be taken: {reason}")
    d_model = _size(config, "hidden_size", "n_embd", "n_embed", "d_model")
    if (width := _size(config, family.embed_width, default=d_model)) != d_model:
        raise UserError(
            f"this {model_type} model cannot be taken: a projection stands between its embeddings, "
            f"of {width} numbers, and its stream, of {d_model}"
        )
    n_heads = _size(config, "num_attention_heads", "n_head", "num_heads", "n_heads")
    divisor = _number(config, family.logit_divisor) or 1.0
    return ModelSpec(
        model_type=model_type,
        n_layers=_size(config, "num_hidden_layers", "n_layer", "num_layers", "n_layers"),
        d_model=d_model,
        d_mlp=_size(config, *family.d_mlp, default=4 * d_model),
        n_heads=n_heads,
        n_kv_heads=_size(config, family.n_kv_heads, default=n_heads),
        d_head=_size(config, family.d_head, default=d_model // n_heads),
        d_vocab=_size(config, "vocab_size"),
        norm=family.norm,
        activation=_activation(config, family),
        tied=_flag(config, "tie_word_embeddings"),
        eps=_number(config, family.eps),
        parallel=family.parallel,
        softcap=_number(config, family.softcap),
        logit_scale=(_number(config, family.logit_scale) or 1.0) / divisor,
        residual_scale=_number(config, family.residual_scale) or 1.0,
        family=family,
        **_experts(config, family.experts),
    )


def _both_ways(config: Config) -> bool:
    """Whether transformers masks no later tokens: its switch for every family, and Gemma's."""
    return config.get("is_causal") is False or config.get("use_bidirectional_attention") in (
        True,
        "all",
    )


def _experts(config: Config, experts: Experts | None) -> dict[str, int]:
    if experts is None:
        return {}
    width = _size(config, experts.width)
    sizes = {"n_experts": _size(config, *experts.count), "d_expert": width}
    if experts.shared:
        together = _size(config, experts.shared_count, default=1)
        sizes["d_shared"] = _size(config, experts.shared_width, default=together * width)
    return sizes


def _language_model(config: Config) -> Config:
    """The config of a family that is known; of a model with a text model inside, the text model's,
    with the whole model's word on whether the embeddings are tied."""
    if not isinstance(config, dict) or not isinstance(config.get("text_config", {}), dict):
        raise UserError("config.json is not a model's config: fetch it again")
    whole, model_type = config, config.get("model_type")
    if isinstance(model_type, str) and model_type in WRAPPERS:
        config = _inside(config, WRAPPERS[model_type])
        model_type = config["model_type"]
    if isinstance(model_type, str) and model_type in UNFIT:
        raise UserError(f"{model_type} models cannot be taken: {UNFIT[model_type]}")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise UserError(
            f"model family {model_type!r} is not known (`interp models families` lists those that "
            "are); docs/extending.md says how to add it"
        )
    if whole.get("quantization_config") or config.get("quantization_config"):
        raise UserError("this checkpoint is quantised: dequantise it to float16 or float32 first")
    return config


def _inside(config: Config, wrapper: Wrapper) -> Config:
    """The text model's config, complete."""
    text = config.get("text_config", config)  # Qwen2-VL's first releases have it on one level
    flat = text is config
    text = {**text, "model_type": wrapper.text if flat else text.get("model_type", wrapper.text)}
    tied = _flag({"tie_word_embeddings": wrapper.tied, **config}, "tie_word_embeddings")
    if wrapper.text_decides and not tied and str(text["model_type"]) in FAMILIES:
        silent = FAMILIES[text["model_type"]].defaults
        tied = _flag({**silent, **text}, "tie_word_embeddings")
    return {**text, "tie_word_embeddings": tied}


def _given(config: Config, names: tuple[str, ...], default: Any) -> tuple[str, Any]:
    """The first of a field's names that the config has, and its value; null is not given."""
    name = next((n for n in names if n and config.get(n) is not None), "")
    return name, config[name] if name else default


def _size(config: Config, *names: str, default: int = 0) -> int:
    name, value = _given(config, names, default)
    if isinstance(value, list) and value and all(each == value[0] for each in value):
        value = value[0]  # one a layer (Gemma 3n)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        what = f"'{name}' is {value!r}" if name else f"'{names[0]}' is missing"
        raise UserError(
            f"config.json of this {config['model_type']} model is damaged: {what}; fetch it again"
        )
    return value


def _flag(config: Config, name: str) -> bool:
    value = config[name]
    if not isinstance(value, bool):
        raise UserError(f"config.json is damaged: '{name}' is {value!r}; fetch it again")
    return value


def _number(config: Config, name: str) -> float:
    """A number that the config has; 0 where the family has no such field or it is null."""
    value = config.get(name) if name else None
    value = 0.0 if value is None else value
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e300:
        raise UserError(f"config.json is damaged: '{name}' is {value!r}; fetch it again")
    return float(value)


def _activation(config: Config, family: Family) -> str:
    given = str(config.get(family.activation) or family.defaults[family.activation])
    return family.legacy_activation.get(given, given)
