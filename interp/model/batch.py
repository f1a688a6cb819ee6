"""What goes into a language model's pass: padded ids, transformers' inputs, and where edits act."""

from __future__ import annotations

import math
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


class Sampling(NamedTuple):
    """How each next token is chosen."""

    temperature: float = 0.0
    """0 takes the most likely token; else the logits are divided by it, and one is drawn."""
    top_p: float = 1.0
    """Drawn from the fewest tokens that together have this probability (the nucleus)."""
    seed: int = 0

    def check(self) -> None:
        """Raise UserError for what no text can be drawn by."""
        if not 0 <= self.temperature < math.inf:
            raise UserError(f"a temperature of {self.temperature:g}: give 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise UserError(f"a top-p of {self.top_p:g}: give a share above 0 and up to 1")


class Step(NamedTuple):
    """A new token of each text."""

    ids: Int[Tensor, " batch"]
    logits: Float[Tensor, "batch d_vocab"]
    """What it was chosen by."""


def pick(
    logits: Float[Tensor, "batch d_vocab"], how: Sampling, generator: torch.Generator
) -> Int[Tensor, " batch"]:
    """A token a row."""
    if how.temperature <= 0:
        return logits.argmax(-1)
    below = logits.float() - logits.float().amax(-1, keepdim=True)
    chances = (below.double() / how.temperature).float().softmax(-1)  # near 0 one token is left
    if how.top_p < 1:
        ordered, tokens = chances.sort(-1, descending=True)
        outside = ordered.cumsum(-1) - ordered >= how.top_p  # what is more likely has it already
        chances = chances.scatter(-1, tokens, ordered.masked_fill(outside, 0.0))
    return torch.multinomial(chances, 1, generator=generator)[:, 0]
