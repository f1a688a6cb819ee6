"""The one table of architectures: those that can be taken, and why others cannot."""

from __future__ import annotations

from .dense import DENSE
from .family import Family
from .gpt import GPT
from .mixed import MIXED
from .outside import outside_families

_OWN: dict[str, Family] = {**DENSE, **GPT, **MIXED}
FAMILIES: dict[str, Family] = {**_OWN, **outside_families(_OWN)}
"""`model_type` of config.json -> Family; the table's own, then those of other packages."""

_MAMBA = "its layers mix the stream without an MLP, so there are no neurons to read"
UNFIT: dict[str, str] = {
    **dict.fromkeys(("mamba", "mamba2", "falcon_mamba", "rwkv", "xlstm"), _MAMBA),
}
"""Architectures that cannot be taken, and why."""
