"""A model as plain transformers has it: the part that speaks, its context, and its own logits."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import UserError
from .batch import Batch
from .checkpoint import FIX, refusing
from .devices import is_elsewhere
from .identities import check_causal


def with_head(hf: Any) -> Any:
    """The model, or a whole causal model inside it (Llama 4); one that shares its head with the
    model around it runs in there."""
    inner = getattr(hf, "language_model", None)
    whole = inner is not None and getattr(inner, "get_output_embeddings", lambda: None)()
    return inner if whole else hf


def context_of(hf: Any) -> int | None:
    """The maximum number of tokens in a pass, where the config limits it."""
    context: int | None = getattr(hf.config.get_text_config(), "max_position_embeddings", None)
    if context is not None and context < 1:
        raise UserError(f"the config's 'max_position_embeddings' is {context}: {FIX}")
    return context


def plain_logits(hf: Any, probe: Batch) -> Float[Tensor, "n d_vocab"]:
    """transformers' own logits at the probe's real positions, a row at a time.

    Raises:
        UserError: the model does not run, with or without a cache: a config can be one that
            transformers makes a model of and no pass; or its logits depend on later tokens.
    """
    kind = hf.config.model_type
    fix = "give a --device that holds all of it" if is_elsewhere(hf) else FIX
    with torch.no_grad(), refusing(f"transformers cannot run this {kind} model", fix):
        alone = [
            hf(input_ids=ids[real][None], use_cache=True).logits[0].to(ids.device)
            for ids, real in zip(*probe, strict=True)
        ]
        check_causal(hf, probe.ids[0], alone[0])
    return torch.cat(alone)
