"""The one table of architectures: what can be opened, what lies inside what, and what cannot be."""

from __future__ import annotations

from typing import NamedTuple

from .dense import DENSE
from .family import Family
from .gpt import GPT
from .mixed import MIXED

FAMILIES: dict[str, Family] = {**DENSE, **GPT, **MIXED}
"""`model_type` of config.json -> Family. Outside packages add to it (`families.outside`)."""


class Wrapper(NamedTuple):
    """A model with a text model inside."""

    text: str
    """The text model's family where config.json does not say."""
    tied: bool
    """Whether transformers ties the embeddings where config.json does not say."""
    text_decides: bool = False
    """Whether they are tied too where only the text model's config says so."""


WRAPPERS: dict[str, Wrapper] = {
    "aya_vision": Wrapper("cohere2", True),
    "gemma3": Wrapper("gemma3_text", True),
    "gemma4": Wrapper("gemma4_text", True),
    "idefics3": Wrapper("llama", False),
    "internvl": Wrapper("qwen2", True),
    "llama4": Wrapper("llama4_text", False),
    "llava": Wrapper("llama", False, text_decides=True),
    "llava_next": Wrapper("llama", False),
    "llava_onevision": Wrapper("qwen2", False, text_decides=True),
    "mistral3": Wrapper("mistral", True),
    "paligemma": Wrapper("gemma", True),
    "qwen2_5_vl": Wrapper("qwen2_5_vl_text", False, text_decides=True),
    "qwen3_5": Wrapper("qwen3_5_text", False),
    "qwen2_vl": Wrapper("qwen2_vl_text", False, text_decides=True),
    "smolvlm": Wrapper("llama", False),
    "vipllava": Wrapper("llama", False),
}
"""`model_type` of config.json -> what is inside."""

_MAMBA = "its layers mix the stream without an MLP, so there are no neurons to read"
UNFIT: dict[str, str] = {
    **dict.fromkeys(("mamba", "mamba2", "falcon_mamba", "rwkv", "xlstm"), _MAMBA),
}
"""Architectures that cannot be taken, and why."""
