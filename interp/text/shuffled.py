"""Activations of a stream of contexts in shuffled batches, for training: begun at any batch.

Which tokens make up a batch is known from their ids alone, so a stream that begins late does not
run the model on what comes before. Massive activations are known only when the model has run; their
batches are that much smaller.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import cached_property, partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..model.site import Site
from .contexts import Contexts, ContextStream, Row

READ = 8
"""Contexts in a forward pass."""


def shuffled(
    stream: ContextStream, rows: Iterator[Row], batch: int, pool: int, first: int = 0, seed: int = 0
) -> Iterator[dict[Site, Float[Tensor, "batch d"]]]:
    """Activations at the stream's sites from batch `first` on, until the rows end. Tokens are
    shuffled within pools of at least `pool` of them; what does not fill a batch there is left out.

    The stream's median must be known (something was read before) wherever it begins.
    """
    for read in itertools.islice(unread(stream, rows, batch, pool, seed), first, None):
        yield read()


def unread(
    stream: ContextStream, rows: Iterator[Row], batch: int, pool: int, seed: int = 0
) -> Iterator[Callable[[], dict[Site, Float[Tensor, "batch d"]]]]:
    """The batches of `shuffled`, each read when it is called: one that is passed over costs the
    model nothing."""
    for number, parts in enumerate(_pools(stream, rows, max(pool, batch))):
        own = _Pool(stream, parts)
        generator = torch.Generator().manual_seed(1000 * seed + number)
        order = torch.randperm(own.tokens, generator=generator)
        for start in range(0, own.tokens - batch + 1, batch):
            yield partial(own.batch, order[start : start + batch])


class _Pool:
    """Contexts whose tokens are shuffled together, read once one of them is asked for."""

    def __init__(self, stream: ContextStream, parts: list[Contexts]) -> None:
        self._stream, self._parts = stream, parts
        self.tokens = sum(int(part.chosen.sum()) for part in parts)

    @cached_property
    def _read(self) -> tuple[dict[Site, Tensor], Tensor]:
        return _read(self._stream, self._parts)

    def batch(self, chosen: Int[Tensor, " batch"]) -> dict[Site, Float[Tensor, "kept d"]]:
        """Activations of those tokens that are not massive."""
        x, kept = self._read
        at = (kept.cumsum(0) - 1)[chosen[kept[chosen]]]
        return {site: values[at] for site, values in x.items()}


def _pools(stream: ContextStream, rows: Iterator[Row], full: int) -> Iterator[list[Contexts]]:
    """Contexts whose tokens are shuffled together."""
    pool: list[Contexts] = []
    tokens = 0
    for part in stream.contexts(rows, None, READ):
        pool.append(part)
        tokens += int(part.chosen.sum())
        if tokens >= full:
            yield pool
            pool, tokens = [], 0
    if pool:
        yield pool


def _read(stream: ContextStream, parts: list[Contexts]) -> tuple[dict[Site, Tensor], Tensor]:
    """Activations [kept tokens, d] by site, and which of the tokens they are of [tokens]."""
    read = [(part, *stream.read(part)) for part in parts]
    kept = [now.chosen[before.chosen].cpu() for before, now, _ in read]
    by_site = zip(*((tokens.x, *tokens.before) for *_, tokens in read), strict=True)
    x = {site: torch.cat(values) for site, values in zip(stream.sites, by_site, strict=True)}
    return x, torch.cat(kept)
