"""What goes into a language model's pass: padded ids, transformers' inputs, and where edits act."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..errors import UserError
from .edits import Edit
from .hooked import Chosen


class Batch(NamedTuple):
    """Token ids, left-padded, and where they are real."""

    ids: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"]


def model_inputs(batch: Batch) -> dict[str, Any]:
    """Transformers' inputs, with positions counted from each row's first real token."""
    positions = (batch.mask.long().cumsum(1) - 1).clamp_min(0)[:, -batch.ids.shape[1] :]
    return {
        "input_ids": batch.ids,
        "attention_mask": batch.mask.long(),
        "position_ids": positions,
        "use_cache": False,
    }


def edited_positions(new: Tensor, prompt: Tensor, stepping: bool = False) -> Chosen:
    """Which positions an edit acts on in a pass over `new` tokens, after the prompt if stepping."""

    def chosen(edit: Edit, _: Tensor) -> Tensor:
        if isinstance(edit.where, Tensor):
            if stepping:
                return torch.zeros_like(new)
            if edit.where.shape != prompt.shape:
                raise UserError(
                    f"the mask of the edit at {edit.site} is {list(edit.where.shape)}, the prompt "
                    f"{list(prompt.shape)}"
                )
            return edit.where.to(prompt) & prompt
        if edit.where == "all" or stepping:
            return new
        last = torch.zeros_like(new)
        last[:, -1] = True  # padding is on the left
        return last

    return chosen


def pick(
    logits: Float[Tensor, "batch d_vocab"], temperature: float, generator: torch.Generator
) -> Int[Tensor, " batch"]:
    """A token a row: the most likely one at temperature 0, else drawn."""
    if temperature <= 0:
        return logits.argmax(-1)
    chances = (logits.float() / temperature).softmax(-1)
    return torch.multinomial(chances, 1, generator=generator)[:, 0]
