"""Prompts whose last token runs again and again: a KV cache keeps all tokens before it.

An edit of the last token leaves the tokens before it unchanged. So searches, training and sweeps
compute one token a prompt instead of the whole prompt, and the beginning that all prompts share (a
system message, demonstrations) is computed once for all of them. Naive equivalents:

    run:       with subject.edited(*edits at "last"): subject.logits(batch)[:, -1]
    generate:  with subject.edited(*edits at "last"): subject.generate(batch, count)
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import UserError
from ..model.edits import Edit
from ..model.site import Site

if TYPE_CHECKING:
    from transformers import DynamicCache

    from ..model.backends import Tap
    from ..model.subject import Subject


class LastTokenOutput(NamedTuple):
    """Logits and activations at the last token of every prompt."""

    logits: Float[Tensor, "batch d_vocab"]
    sites: Mapping[Site, Float[Tensor, "batch d"]]


class CachedPrompts:
    """Prompts of at least two tokens, cached up to their last one.

    Raises:
        UserError: a prompt of one token, or one longer than the model's context.
    """

    def __init__(self, subject: Subject, prompts: Sequence[Sequence[int]]) -> None:
        from transformers import DynamicCache

        if not all(len(ids) > 1 for ids in prompts):
            raise UserError("a prompt needs at least two tokens here")
        subject.check_length(max(map(len, prompts), default=0))
        shared = _shared_tokens(prompts)
        rest = subject.pad([ids[shared:] for ids in prompts])
        before = torch.ones(len(prompts), shared, dtype=torch.long, device=subject.device)
        self.subject, self.ids = subject, rest.ids[:, -1:]
        self.mask = torch.cat([before, rest.mask.long()], 1)
        self._cache = DynamicCache()
        with torch.no_grad():
            if shared:
                ids = torch.tensor([list(prompts[0][:shared])], device=subject.device)
                self._pass(ids, before[:1], self._cache, {})
                # views of one row's keys and values as those of every row
                _replace_tensors(self._cache, lambda x: x.expand(len(prompts), -1, -1, -1))
            if rest.ids.shape[1] > 1:
                self._pass(rest.ids[:, :-1], self.mask[:, :-1], self._cache, {})

    def __len__(self) -> int:
        return len(self.ids)

    def repeated(self, times: int) -> CachedPrompts:
        """The prompts as a block, `times` times over; for one prompt, `times` rows of it."""
        block = copy.copy(self)
        block.ids, block.mask = (x.repeat(times, 1) for x in (self.ids, self.mask))
        block._cache = self._copied()
        _replace_tensors(block._cache, lambda x: x.repeat(times, 1, 1, 1))
        return block

    def run(self, edits: Iterable[Edit] = (), sites: Iterable[Site] = ()) -> LastTokenOutput:
        """One pass over the last tokens; edits apply in the order given, and gradients flow if an
        edit needs them."""
        kept: dict[Site, Tensor] = {}
        taps = _taps(list(edits), list(sites), kept)
        logits = self._pass(self.ids, self.mask, self._copied(), taps)
        return LastTokenOutput(logits[:, -1], {site: kept[site][:, -1] for site in sites})

    @torch.no_grad()
    def generate(self, count: int, edits: Iterable[Edit] = ()) -> Int[Tensor, "batch new"]:
        """At most `count` new tokens, greedy; edits apply to the last token and to every new one.

        Rows that have ended are filled with the end token.
        """
        taps, cache = _taps(list(edits), [], {}), self._copied()
        ends = torch.tensor(self.subject._end_tokens(), device=self.subject.device)
        ids, mask = self.ids, self.mask
        out: list[Tensor] = []
        done = torch.zeros(len(ids), dtype=torch.bool, device=self.subject.device)
        while len(out) < count and not bool(done.all()):
            picked = self._pass(ids, mask, cache, taps)[:, -1].argmax(-1)
            picked = torch.where(done, ends[0] if len(ends) else picked, picked)
            out.append(picked)
            done |= torch.isin(picked, ends)
            ids, mask = picked[:, None], torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
        return torch.stack(out, 1) if out else ids[:, :0]

    def _pass(
        self, ids: Tensor, mask: Tensor, cache: DynamicCache, taps: Mapping[Site, Tap]
    ) -> Tensor:
        inputs = {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": (mask.cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :],
            "past_key_values": cache,
            "use_cache": True,
            "logits_to_keep": 1,
        }
        logits = self.subject._backend.run(inputs, taps, False)
        assert logits is not None
        return logits

    def _copied(self) -> DynamicCache:
        """A cache that grows without changing this one: its tensors are replaced, not written."""
        copied = copy.copy(self._cache)
        copied.layers = [copy.copy(layer) for layer in self._cache.layers]
        return copied


def _shared_tokens(prompts: Sequence[Sequence[int]]) -> int:
    """How many first tokens all prompts share, the last token of each left out."""
    alike = takewhile(lambda ids: len(set(ids)) == 1, zip(*prompts, strict=False))
    return min(sum(1 for _ in alike), min(map(len, prompts)) - 1)


def _taps(
    edits: Sequence[Edit], sites: Sequence[Site], kept: dict[Site, Tensor]
) -> dict[Site, Tap]:
    """For every site, a function that applies its edits and keeps the result in `kept`."""

    def tap_of(site: Site) -> Tap:
        here = [edit for edit in edits if edit.site == site]

        def tap(x: Tensor) -> Tensor | None:
            everywhere = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
            for edit in here:
                x = edit(x, everywhere)
            kept[site] = x
            return x if here else None

        return tap

    return {site: tap_of(site) for site in dict.fromkeys([*(e.site for e in edits), *sites])}


def _replace_tensors(cache: DynamicCache, change: Callable[[Tensor], Tensor]) -> None:
    layers: list[Any] = cache.layers
    for layer in layers:
        layer.keys, layer.values = change(layer.keys), change(layer.values)
