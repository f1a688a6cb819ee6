"""What a subject is made of: a transformers model of its own on its device, its stored weights and
its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from ..errors import UserError
from .adapter import private_copy
from .catalog import resolve
from .checkpoint import load_model
from .devices import Split, check_device, home_of, is_elsewhere, log_places
from .plain import with_head
from .remote_files import check_is_here
from .tokenizer_files import load_tokenizer
from .weights import Weights


class Loaded(NamedTuple):
    """A model that is ready to run."""

    model: Any
    """transformers' causal model, for reading: its weights take no gradient."""
    home: torch.device
    """Where it takes its inputs."""
    weights: Weights | None
    """As stored, if it came from a folder."""
    tokenizer: Any
    """The one that was given, else the folder's."""


def load(
    model: str | Path | nn.Module,
    device: str,
    dtype: torch.dtype,
    attention: str | None,
    tokenizer: Any,
) -> Loaded:
    """A model of this process's own.

    Raises:
        UserError: a device that cannot be used here; a model in memory that is to be split, or is.
    """
    split = Split.of(device)
    if split is None:
        check_device(device)
    if isinstance(model, nn.Module):
        if split:
            raise UserError("a model in memory is not split: save it to a folder and open that")
        if is_elsewhere(model):
            raise UserError("parts of this model are not in memory: open its folder with 'split'")
        whole, weights = private_copy(model), None
    else:
        folder = resolve(str(model))
        check_is_here(folder)
        weights = Weights(folder)  # before anything is made by its config
        wanted: dict[str, Any] = {"attn_implementation": attention} if attention else {}
        wanted |= split.options if split else {}
        whole = load_model(folder, dtype=dtype, **wanted)
        tokenizer = tokenizer or load_tokenizer(folder)
    hf = with_head(whole).eval().requires_grad_(False)
    if split:
        log_places(whole)
        return Loaded(hf, home_of(whole), weights, tokenizer)
    if attention and weights is None:
        hf.set_attn_implementation(attention)
    return Loaded(hf.to(device), hf.device, weights, tokenizer)
