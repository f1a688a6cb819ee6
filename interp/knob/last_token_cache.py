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
from ..model.batch import Batch, model_inputs
from ..model.edits import Edit
from ..model.site import Site
from ..model.subject import Subject

if TYPE_CHECKING:
    from transformers import DynamicCache


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
        before = torch.ones(len(prompts), shared, dtype=torch.bool, device=subject.device)
        self.subject, self.ids = subject, rest.ids[:, -1:]
        self.mask = torch.cat([before, rest.mask], 1)
        self._cache = DynamicCache()
        with torch.no_grad():
            if shared:
                ids = torch.tensor([list(prompts[0][:shared])], device=subject.device)
                self._pass(ids, before[:1], self._cache)
                # views of one row's keys and values as those of every row
                _replace_tensors(self._cache, lambda x: x.expand(len(prompts), -1, -1, -1))
            if rest.ids.shape[1] > 1:
                self._pass(rest.ids[:, :-1], self.mask[:, :-1], self._cache)

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

        def keeping(site: Site) -> Edit:
            return Edit(site, lambda h: kept.setdefault(site, h))

        with self.subject.edited(*edits, *map(keeping, sites)):
            logits = self._pass(self.ids, self.mask, self._copied())
        return LastTokenOutput(logits[:, -1], {site: h[:, -1] for site, h in kept.items()})

    def generate(self, count: int, edits: Iterable[Edit] = ()) -> Int[Tensor, "batch new"]:
        """At most `count` new tokens, greedy; edits apply to the last token and to every new one.

        Rows that have ended are filled with the end token.
        """
        with self.subject.edited(*edits):
            batch = Batch(self.ids, self.mask)
            return self.subject.generate(batch, count, cache=self._copied())

    def _pass(self, ids: Tensor, mask: Tensor, cache: DynamicCache) -> Tensor:
        own = {self.subject.cache_name: cache, "use_cache": True, "logits_to_keep": 1}
        everywhere = torch.ones_like(ids, dtype=torch.bool)
        return self.subject._pass(model_inputs(Batch(ids, mask)) | own, lambda *_: everywhere)

    def _copied(self) -> DynamicCache:
        """A cache that grows without changing this one: its tensors are replaced, not written."""
        copied = copy.copy(self._cache)
        copied.layers = [copy.copy(layer) for layer in self._cache.layers]
        return copied


def _shared_tokens(prompts: Sequence[Sequence[int]]) -> int:
    """How many first tokens all prompts share, the last token of each left out."""
    alike = takewhile(lambda ids: len(set(ids)) == 1, zip(*prompts, strict=False))
    return min(sum(1 for _ in alike), min(map(len, prompts)) - 1)


def _replace_tensors(cache: DynamicCache, change: Callable[[Tensor], Tensor]) -> None:
    layers: list[Any] = cache.layers
    for layer in layers:
        layer.keys, layer.values = change(layer.keys), change(layer.values)
