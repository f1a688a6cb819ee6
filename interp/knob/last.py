"""Prompts whose last token is run again and again: all before it stays in a KV cache.

Whatever is done to the last token leaves the tokens before it as they were, so searches, training
and sweeps pay for one token a prompt instead of the whole prompt. Naive equivalent of `run`:

    with subject.edited(*edits at "last"): subject.logits(batch)[:, -1]
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..edits import Edit
from ..errors import UserError
from ..site import Site

if TYPE_CHECKING:
    from transformers import DynamicCache

    from ..backends import Tap
    from ..subject import Subject


class Seen(NamedTuple):
    """What one run of the last token gave."""

    logits: Float[Tensor, "batch d_vocab"]
    sites: Mapping[Site, Float[Tensor, "batch d"]]


class LastToken:
    """Prompts of at least two tokens, ready to run their last one."""

    def __init__(self, subject: Subject, prompts: Sequence[Sequence[int]]) -> None:
        from transformers import DynamicCache

        if not all(len(ids) > 1 for ids in prompts):
            raise UserError("a prompt needs at least two tokens here")
        self.subject, batch = subject, subject.pad(prompts)
        self.ids, self.mask = batch.ids[:, -1:], batch.mask.long()
        self.positions = (self.mask.cumsum(1) - 1).clamp_min(0)
        self._cache = DynamicCache()
        inputs = {
            "input_ids": batch.ids[:, :-1],
            "attention_mask": self.mask[:, :-1],
            "position_ids": self.positions[:, :-1],
            "past_key_values": self._cache,
            "use_cache": True,
        }
        with torch.no_grad():
            subject._backend.run(inputs, {}, False)

    def __len__(self) -> int:
        return len(self.ids)

    def repeated(self, times: int) -> LastToken:
        """The prompts as a block, `times` times over; for one prompt, `times` rows of it."""
        made = copy.copy(self)
        made.ids, made.mask, made.positions = (
            x.repeat(times, 1) for x in (self.ids, self.mask, self.positions)
        )
        made._cache = self._copied()
        layers: list[Any] = made._cache.layers
        for layer in layers:
            layer.keys, layer.values = (
                x.repeat(times, 1, 1, 1) for x in (layer.keys, layer.values)
            )
        return made

    def run(self, edits: Iterable[Edit] = (), sites: Iterable[Site] = ()) -> Seen:
        """One pass over the last tokens; edits apply in the order given, and gradients flow if an
        edit needs them."""
        kept: dict[Site, Tensor] = {}
        taps: dict[Site, Tap] = {}
        given = list(edits)
        for site in dict.fromkeys([*(edit.site for edit in given), *sites]):
            here = [edit for edit in given if edit.site == site]
            taps[site] = self._tap(here, site, kept)
        inputs = {
            "input_ids": self.ids,
            "attention_mask": self.mask,
            "position_ids": self.positions[:, -1:],
            "past_key_values": self._copied(),
            "use_cache": True,
        }
        logits = self.subject._backend.run(inputs, taps, False)
        assert logits is not None
        return Seen(logits[:, -1], {site: kept[site][:, -1] for site in sites})

    def _tap(self, edits: list[Edit], site: Site, kept: dict[Site, Tensor]) -> Tap:
        everywhere = torch.ones_like(self.ids, dtype=torch.bool)

        def tap(x: Tensor) -> Tensor | None:
            for edit in edits:
                x = edit(x, everywhere)
            kept[site] = x
            return x if edits else None

        return tap

    def _copied(self) -> DynamicCache:
        """A cache that grows without changing this one: its tensors are replaced, not written."""
        made = copy.copy(self._cache)
        made.layers = [copy.copy(layer) for layer in self._cache.layers]
        return made
