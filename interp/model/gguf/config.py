"""The metadata of a GGUF file -> the fields of config.json and generation_config.json."""

from __future__ import annotations

from typing import Any

from ...errors import UserError
from ..ends import END_TEXTS
from .architectures import ARCHITECTURES, Architecture
from .file import GgufFile
from .metadata import Metadata, check_kinds
from .rope import read_rope
from .tokenizer import CONTROL

_IDS = {
    "bos_token_id": "bos_token_id",
    "eos_token_id": "eos_token_id",
    "pad_token_id": "padding_token_id",
}
_ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")
"""The ends of a text, of a turn, and of a message that a tool answers."""


def architecture_of(file: GgufFile) -> Architecture:
    """The table's entry.

    Raises:
        UserError: the architecture is not in the table.
    """
    name = Metadata(file).architecture
    if name not in ARCHITECTURES:
        raise UserError(
            f"GGUF architecture '{name}' is not known (known: {', '.join(ARCHITECTURES)}): convert "
            "the model's safetensors instead, or give ARCHITECTURES in "
            "interp/model/gguf/architectures.py its names"
        )
    return ARCHITECTURES[name]


def read_config(file: GgufFile) -> dict[str, Any]:
    """Fields of config.json, `model_type` among them.

    Raises:
        UserError: metadata that is missing or that transformers has nothing for.
    """
    check_kinds(file)
    architecture, metadata = architecture_of(file), Metadata(file)
    width, n_heads = metadata.size("embedding_length"), metadata.size("attention.head_count")
    n_layers, d_mlp = metadata.size("block_count"), metadata.size("feed_forward_length")
    head = metadata.size("attention.key_length", width // n_heads)
    n_kv_heads = metadata.size("attention.head_count_kv", n_heads)
    if metadata.size("attention.value_length", head) != head:
        raise metadata.refusal("has keys and values of different sizes")
    key, name = architecture.eps
    fields: dict[str, Any] = {
        "model_type": architecture.model_type,
        "hidden_size": width,
        "num_hidden_layers": n_layers,
        "num_attention_heads": n_heads,
        "max_position_embeddings": metadata.size("context_length"),
        "vocab_size": _vocabulary(file, metadata),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        name: metadata.number(key),
        "dtype": "float32",
    }
    if architecture.heads:
        fields |= {"head_dim": head, "num_key_value_heads": n_kv_heads}
    elif (head * n_heads, n_kv_heads) != (width, n_heads):
        raise metadata.refusal("has heads of a size that its family has not")
    if architecture.mlp:
        fields[architecture.mlp] = d_mlp
    elif d_mlp != 4 * width:
        raise metadata.refusal(f"has {d_mlp} neurons a layer, and its family four times the width")
    if architecture.wide_from:
        wide = n_layers >= architecture.wide_from
        fields["query_pre_attn_scalar"] = width // n_heads if wide else head
    if architecture.windows:
        fields |= _windows(metadata, n_layers)
    if architecture.rope:
        fields["rope_parameters"] = read_rope(metadata, head, architecture.rope)
    fields |= {to: metadata.get(of) or None for of, to in architecture.config.items()
               if of in metadata.values}  # fmt: skip
    fields |= architecture.always | _by_tensors(architecture, metadata)
    metadata.check_all_asked()
    ids = {to: file.metadata.get(f"tokenizer.ggml.{of}") for to, of in _IDS.items()}
    return fields | ids


def read_generation(file: GgufFile) -> dict[str, Any]:
    """Fields of generation_config.json; `eos_token_id` lists every token that ends an answer."""
    ids = {to: file.metadata.get(f"tokenizer.ggml.{of}") for to, of in _IDS.items()}
    named = [file.metadata.get(f"tokenizer.ggml.{name}") for name in _ENDS]
    ends = [*(end for end in named if end is not None), *_ends_by_text(file)]
    ids["eos_token_id"] = [*dict.fromkeys(ends)] or None
    return {name: value for name, value in ids.items() if value is not None}


def _ends_by_text(file: GgufFile) -> list[int]:
    """Most files name the end of a text alone, and not that of a turn."""
    tokens = file.metadata.get("tokenizer.ggml.tokens", ())
    types = file.metadata.get("tokenizer.ggml.token_type", ())
    return [
        i
        for i, (token, kind) in enumerate(zip(tokens, types, strict=False))
        if kind == CONTROL and token in END_TEXTS
    ]


def _vocabulary(file: GgufFile, metadata: Metadata) -> int:
    """The number of rows of the embedding, which the metadata must not contradict."""
    if "token_embd.weight" not in file.tensors:
        raise metadata.refusal("has no tensor 'token_embd.weight'")
    rows = file.tensors["token_embd.weight"].shape[0]
    tokens = len(file.metadata.get("tokenizer.ggml.tokens", ()))
    if metadata.size("vocab_size", rows) != rows or tokens > rows:
        raise metadata.refusal(f"has {rows} rows of embeddings for another number of tokens")
    return rows


def _by_tensors(architecture: Architecture, metadata: Metadata) -> dict[str, bool]:
    """The flags that follow from which tensors there are; metadata must not contradict them."""
    flags = {}
    for name, tensor in architecture.where.items():
        there = f"blk.0.{tensor.removeprefix('!')}" in metadata.file.tensors
        flags[name] = there != tensor.startswith("!")
        if bool(metadata.get(name, flags[name])) != flags[name]:
            raise metadata.refusal(f"contradicts itself in '{metadata.architecture}.{name}'")
    return flags


def _windows(metadata: Metadata, n_layers: int) -> dict[str, Any]:
    """Which layers have a sliding window, where the file says so; else the family's pattern."""
    pattern = metadata.values.get("attention.sliding_window_pattern")
    metadata.asked.add("attention.sliding_window_pattern")
    if pattern is None:
        return {}
    wrong = not isinstance(pattern, int | list) or (isinstance(pattern, int) and pattern < 1)
    if wrong or (isinstance(pattern, list) and len(pattern) != n_layers):
        raise metadata.refusal("has a pattern of windows that is not one of its layers")
    if isinstance(pattern, int):
        pattern = [layer % pattern < pattern - 1 for layer in range(n_layers)]
    return {"layer_types": ["sliding_attention" if s else "full_attention" for s in pattern]}
