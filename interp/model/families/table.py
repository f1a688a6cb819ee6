"""The one table of architectures: those that can be taken, and why others cannot."""

from __future__ import annotations

from .dense import DENSE
from .family import Family
from .gpt import GPT
from .mixed import MIXED

FAMILIES: dict[str, Family] = {**DENSE, **GPT, **MIXED}
"""`model_type` of config.json -> Family. Outside packages add to it (`families.outside`)."""

_MAMBA = "its layers mix the stream without an MLP, so there are no neurons to read"
UNFIT: dict[str, str] = {
    **dict.fromkeys(("mamba", "mamba2", "falcon_mamba", "rwkv", "xlstm"), _MAMBA),
}
"""Architectures that cannot be taken, and why."""
