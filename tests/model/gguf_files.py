"""Tiny GGUF files of every architecture, as llama.cpp's converter would write them.

Names come from the `gguf` package's own table and the layouts are written here once more, the other
way round than in `interp.model.gguf`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from interp.model.gguf.file import GgufFile, Stored

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 70,
    "max_position_embeddings": 128,
}
HEAD = {"head_dim": 16}
LAYER_NORM = "attention.layer_norm_epsilon"
RMS = "attention.layer_norm_rms_epsilon"


@dataclass(frozen=True)
class Case:
    """One architecture: its model in transformers, and what llama.cpp writes of it."""

    config: dict[str, Any]
    keys: dict[str, Any] = field(default_factory=dict)
    eps: str = RMS
    gemma_norms: bool = False


_GPT2 = {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 70}
CASES: dict[str, Case] = {
    "llama": Case({"model_type": "llama", **SIZES, **HEAD}),
    "qwen2": Case({"model_type": "qwen2", **SIZES}),
    # transformers' loader knows no other size of a head than 128 here
    "qwen3": Case({"model_type": "qwen3", **SIZES, "head_dim": 128}),
    # nor of an expert than 768
    "qwen3moe": Case(
        {"model_type": "qwen3_moe", **SIZES, "head_dim": 16, "num_experts": 3,
         "num_experts_per_tok": 2, "moe_intermediate_size": 768, "norm_topk_prob": True},
        {"expert_count": 3, "expert_used_count": 2, "expert_feed_forward_length": 768},
    ),
    "gemma2": Case(
        {"model_type": "gemma2", **SIZES, "head_dim": 32, "sliding_window": 8},
        {"attention.sliding_window": 8, "attn_logit_softcapping": 40.0},
        gemma_norms=True,
    ),
    "gemma3": Case(
        {"model_type": "gemma3_text", **SIZES, "head_dim": 32, "sliding_window": 8},
        {"attention.sliding_window": 8},
        gemma_norms=True,
    ),
    "gpt2": Case({"model_type": "gpt2", **_GPT2}, eps=LAYER_NORM),
    "phi3": Case(
        {"model_type": "phi3", **SIZES, "pad_token_id": 0},
        {"attention.sliding_window": 0, "rope.dimension_count": 16},
    ),
    "starcoder2": Case({"model_type": "starcoder2", **SIZES}, eps=LAYER_NORM),
    "stablelm": Case(
        {"model_type": "stablelm", **SIZES, "rope_parameters": {
            "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25}},
        {"rope.dimension_count": 4, "use_parallel_residual": False},
        eps=LAYER_NORM,
    ),
    "nemotron": Case(
        {"model_type": "nemotron", **SIZES, **HEAD},
        {"rope.dimension_count": 8},
        eps=LAYER_NORM,
        gemma_norms=True,
    ),
    "bloom": Case(
        {"model_type": "bloom", "hidden_size": 64, "n_layer": 2, "n_head": 4, "vocab_size": 70},
        eps=LAYER_NORM,
    ),
}  # fmt: skip


def make_model(case: Case) -> Any:
    """A random model, every weight of which is random."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**case.config))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return model.eval()


def write_gguf(
    path: Path, name: str, model: Any, without: str = "", keys: dict[str, Any] | None = None
) -> None:
    """A model as llama.cpp would write it; value vectors are quantised, up projections halved."""
    case, config = CASES[name], model.config
    writer = gguf.GGUFWriter(str(path), name)
    sizes = {
        "context_length": getattr(config, "max_position_embeddings", 1024),
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": getattr(config, "intermediate_size", 4 * config.hidden_size),
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": getattr(
            config, "num_key_value_heads", config.num_attention_heads
        ),
        "vocab_size": config.vocab_size,
    }
    if "head_dim" in case.config:
        sizes |= {
            "attention.key_length": config.head_dim,
            "attention.value_length": config.head_dim,
        }
    for key, value in ({**sizes, case.eps: 1e-5, **case.keys} | (keys or {})).items():
        if isinstance(value, bool):
            writer.add_bool(f"{name}.{key}", value)
        elif isinstance(value, int):
            writer.add_uint32(f"{name}.{key}", value)
        elif isinstance(value, float):
            writer.add_float32(f"{name}.{key}", value)
        else:
            writer.add_string(f"{name}.{key}", value)
    writer.add_tokenizer_model("none")
    writer.add_token_list([f"t{i}" for i in range(config.vocab_size)])
    writer.add_pad_token_id(0)
    for theirs, tensor in gguf_tensors(name, model).items():
        if theirs == without:
            continue
        kind = _stored_as(theirs)
        raw = gguf.quantize(tensor, kind) if kind else tensor
        writer.add_tensor(theirs, raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_tensors(name: str, model: Any) -> dict[str, np.ndarray]:
    """llama.cpp's name -> array in its layout."""
    arch = next(a for a, text in gguf.MODEL_ARCH_NAMES.items() if text == name)
    names = gguf.get_tensor_name_map(arch, model.config.num_hidden_layers)
    tensors = {}
    for ours, tensor in model.state_dict().items():
        if ours == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        if ".experts." in ours:
            tensors |= _experts(ours, tensor.numpy())
            continue
        stem, _, end = ours.rpartition(".")
        base = names.get_name(stem) or names.get_name(stem.removeprefix("transformer."))
        assert base is not None, ours
        tensors[f"{base}.{end}"] = _laid_out(name, base, end, tensor.numpy(), model.config)
    return tensors


def _experts(ours: str, stacked: np.ndarray) -> dict[str, np.ndarray]:
    layer = ours.split(".")[2]
    if ours.endswith("down_proj"):
        return {f"blk.{layer}.ffn_down_exps.weight": stacked}
    gate, up = np.split(stacked, 2, 1)
    return {
        f"blk.{layer}.ffn_{part}_exps.weight": np.ascontiguousarray(array)
        for part, array in (("gate", gate), ("up", up))
    }


def _laid_out(name: str, base: str, end: str, array: np.ndarray, config: Any) -> np.ndarray:
    heads = config.num_attention_heads
    if name == "llama" and base.endswith(("attn_q", "attn_k")):
        n = heads if base.endswith("q") else config.num_key_value_heads
        halves = array.reshape(n, 2, array.shape[0] // n // 2, *array.shape[1:])
        array = halves.swapaxes(1, 2).reshape(array.shape)
    if name == "bloom" and base.endswith("attn_qkv"):
        by_head = array.reshape(heads, 3, -1, *array.shape[1:])
        array = by_head.swapaxes(0, 1).reshape(array.shape)
    if (
        name == "gpt2"
        and end == "weight"
        and base.endswith(("qkv", "output", "ffn_up", "ffn_down"))
    ):
        array = array.T if base != "output" else array
    if CASES[name].gemma_norms and end == "weight" and base.endswith("norm"):
        array = array + 1
    return np.ascontiguousarray(array)


def _stored_as(name: str) -> gguf.GGMLQuantizationType | None:
    if name.endswith(("attn_v.weight", "attn_qkv.weight")):
        return gguf.GGMLQuantizationType.Q8_0
    if name.endswith("ffn_up.weight"):
        return gguf.GGMLQuantizationType.F16
    return None


def metadata_only(name: str, tensors: dict[str, np.ndarray] | None = None, **keys: Any) -> GgufFile:
    """A file in memory that has an architecture's usual metadata, `keys` (`__` for a dot) and the
    embedding; `tensors` beside it."""
    plain = {
        "context_length": 131072, "embedding_length": 64, "block_count": 2,
        "feed_forward_length": 96, "attention.head_count": 4, CASES[name].eps: 1e-5,
    }  # fmt: skip
    said = {f"{name}.{k}": v for k, v in (plain | _dotted(keys)).items() if v is not None}
    arrays = {"token_embd.weight": np.zeros((70, 64), np.float32)} | (tensors or {})
    return GgufFile(
        Path("made.gguf"),
        {"general.architecture": name} | said,
        {tensor: in_memory(array) for tensor, array in arrays.items()},
    )


def _dotted(keys: dict[str, Any]) -> dict[str, Any]:
    return {key.replace("__", "."): value for key, value in keys.items()}


def in_memory(array: np.ndarray) -> Stored:
    rows = array.reshape(-1, array.shape[-1] if array.ndim > 1 else 1)
    packed = np.ascontiguousarray(rows).view(np.uint8)
    return Stored(array.shape, gguf.GGMLQuantizationType.F32, packed)
