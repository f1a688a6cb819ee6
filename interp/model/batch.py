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


def edited_positions(batch: Batch, prompt: Bool[Tensor, "batch pos"], new: bool = False) -> Chosen:
    """Which of the positions of a pass an edit acts on.

    Args:
        batch: the pass's ids, and the mask of all tokens up to them.
        prompt: the prompt's mask.
        new: whether the ids were generated after the prompt.
    """
    real = batch.mask[:, -batch.ids.shape[1] :]

    def chosen(edit: Edit, _: Tensor) -> Tensor:
        where = _where(edit, real, prompt, new)
        if edit.not_ids:
            ids = torch.tensor(edit.not_ids, device=batch.ids.device)
            where = where & ~torch.isin(batch.ids, ids)
        if edit.not_first:
            where = where & (model_inputs(batch)["position_ids"] >= edit.not_first)
        return where

    return chosen


def _where(edit: Edit, real: Tensor, prompt: Tensor, new: bool) -> Tensor:
    """What the edit's `where` says, over the pass's real tokens."""
    if isinstance(edit.where, Tensor):
        if new:
            return torch.zeros_like(real)
        if edit.where.shape != prompt.shape:
            raise UserError(
                f"the mask of the edit at {edit.site} is {list(edit.where.shape)}, the prompt "
                f"{list(prompt.shape)}"
            )
        return edit.where.to(prompt) & prompt
    if edit.where == "all" or new:
        return real
    last = torch.zeros_like(real)
    last[:, -1] = True  # padding is on the left
    return last


def pick(
    logits: Float[Tensor, "batch d_vocab"], temperature: float, generator: torch.Generator
) -> Int[Tensor, " batch"]:
    """A token a row: the most likely one at temperature 0, else drawn."""
    if temperature <= 0:
        return logits.argmax(-1)
    chances = (logits.float() / temperature).softmax(-1)
    return torch.multinomial(chances, 1, generator=generator)[:, 0]
