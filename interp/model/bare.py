"""The passes of plain transformers that ours are compared with: the same weights and no hook."""

from __future__ import annotations

from typing import Any

import torch

from ..errors import UserError
from .catalog import resolve


def first_layers(model: str, layers: int, device: torch.device) -> Any:
    """The base model in float32 with its first layers alone, and no head.

    Raises:
        UserError: a model whose layers cannot be told from its other parts.
    """
    from transformers import AutoModel

    whole = AutoModel.from_pretrained(resolve(model), dtype=torch.float32, trust_remote_code=False)
    whole = whole.eval().to(device)
    stacks = [m for m in whole.children() if isinstance(m, torch.nn.ModuleList)]
    if len(stacks) != 1:
        raise UserError(f"cannot tell which modules of {model} are its layers")
    del stacks[0][layers:]
    return whole


def whole_model(model: str, device: torch.device) -> Any:
    """The model in float32 with its head, to generate."""
    from transformers import AutoModelForCausalLM

    whole = AutoModelForCausalLM.from_pretrained(
        resolve(model), dtype=torch.float32, trust_remote_code=False
    )
    return whole.eval().to(device)  # type: ignore[no-untyped-call]
