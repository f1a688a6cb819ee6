"""Prompts whose last token is run again and again: all before it stays in a KV cache.

Whatever is done to the last token leaves the tokens before it as they were, so searches, training
and sweeps pay for one token a prompt instead of the whole prompt; and what all prompts begin with
(a system message, demonstrations) is read once for all of them. Naive equivalents:

    run:       with subject.edited(*edits at "last"): subject.logits(batch)[:, -1]
    generate:  with subject.edited(*edits at "last"): subject.generate(batch, count)
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
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
        subject.check_length(max(map(len, prompts), default=0))
        shared = _shared(prompts)
        rest = subject.pad([ids[shared:] for ids in prompts])
        before = torch.ones(len(prompts), shared, dtype=torch.long, device=subject.device)
        self.subject, self.ids = subject, rest.ids[:, -1:]
        self.mask = torch.cat([before, rest.mask.long()], 1)
        self._cache = DynamicCache()
        with torch.no_grad():
            if shared:
                ids = torch.tensor([list(prompts[0][:shared])], device=subject.device)
                self._pass(ids, before[:1], self._cache, {})
                _expand(self._cache, len(prompts))
            if rest.ids.shape[1] > 1:
                self._pass(rest.ids[:, :-1], self.mask[:, :-1], self._cache, {})

    def __len__(self) -> int:
        return len(self.ids)

    def repeated(self, times: int) -> LastToken:
        """The prompts as a block, `times` times over; for one prompt, `times` rows of it."""
        made = copy.copy(self)
        made.ids, made.mask = (x.repeat(times, 1) for x in (self.ids, self.mask))
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
        taps = _taps(list(edits), list(sites), kept)
        logits = self._pass(self.ids, self.mask, self._copied(), taps)
        return Seen(logits[:, -1], {site: kept[site][:, -1] for site in sites})

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
        made = copy.copy(self._cache)
        made.layers = [copy.copy(layer) for layer in self._cache.layers]
        return made


def _shared(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with, each keeping its last one."""
    alike = takewhile(lambda ids: len(set(ids)) == 1, zip(*prompts, strict=False))
    return min(sum(1 for _ in alike), min(map(len, prompts)) - 1)


def _taps(
    edits: Sequence[Edit], sites: Sequence[Site], kept: dict[Site, Tensor]
) -> dict[Site, Tap]:
    """What is done at every site, and where its new values are kept."""

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


def _expand(cache: DynamicCache, rows: int) -> None:
    """One row's keys and values for `rows` rows, without a copy."""
    layers: list[Any] = cache.layers
    for layer in layers:
        layer.keys, layer.values = (x.expand(rows, -1, -1, -1) for x in (layer.keys, layer.values))
