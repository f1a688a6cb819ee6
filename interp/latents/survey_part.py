"""A part of a survey: some contexts of its corpus, read by the model and tallied."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from ..errors import UserError
from ..runs.workers_task import Workers
from ..saes import Sae
from ..text.contexts import Contexts, ContextStream, Row, Tokens
from .merging import Tallies
from .tallies import Fired, Step

BATCH = 8
"""Contexts in a forward pass."""
TOKENS = 2**13
"""In a part, in whole batches; one batch at least."""
DENSE = 2**26
"""Numbers that a step may have, as latents [tokens, n] (0.25 GiB): it is cut between contexts. One
context is a step at least."""
STAGES = ("forward", "encode", "tally")


class Settings(Protocol):
    """What is asked of a pass: a survey's config."""

    @property
    def contexts(self) -> int: ...

    @property
    def length(self) -> int: ...

    @property
    def skip(self) -> int: ...

    @property
    def top(self) -> int: ...

    @property
    def seed(self) -> int: ...

    @property
    def own_device(self) -> str: ...

    @property
    def spread(self) -> Workers: ...


def contexts_a_part(length: int) -> int:
    """How many contexts of so many tokens are a part."""
    return BATCH * max(1, TOKENS // (BATCH * length))


class PartReader:
    """What a worker keeps from part to part: the model, the SAE, and where it is in the corpus.

    Args:
        config: says what is kept of each latent.
    """

    def __init__(self, stream: ContextStream, sae: Sae, config: Settings) -> None:
        self.stream, self._sae, self._config = stream, sae, config
        if config.own_device != "cpu" and isinstance(sae.inner, torch.nn.Module):
            sae.inner.to(config.own_device)
        self.unit = 0.0
        """The median size of the activations of the stream's first step that has any: the middle of
        the histograms."""
        self._looked = 0
        """Of so many contexts of the stream it is known whether they have an activation."""
        self._rows: Iterator[Row] = iter(())
        self._at = -1
        """The number of the next of the rows; -1 where they must be opened again."""
        self.seconds = dict.fromkeys(STAGES, 0.0)

    def read(self, first: int) -> tuple[Tallies, dict[str, Any]]:
        """The tallies of a part, and what else there is to say of it.

        Args:
            first: the number of its first context.

        Raises:
            UserError: as `ContextStream.contexts` and `read`; an SAE that makes a NaN.
        """
        config, documents, counted = self._config, set[int](), 0
        self._look(first)
        self.stream.left_out, self.seconds = 0, dict.fromkeys(STAGES, 0.0)
        tallies = Tallies.empty(self._sae.d_sae, config.top)
        count = min(contexts_a_part(config.length), config.contexts - first)
        for part, tokens in self._batches(first, count):
            for step in self.steps(part, tokens):
                counted += len(step.context)
                with self._timed("tally"):
                    self.add(tallies, step)
            documents.update(tokens.document.tolist())
        if self._looked == first:
            self._looked += count
        return tallies, {
            "contexts": count,
            "counted": counted,
            "unit": self.unit,
            "median": self.stream.median,
            "left_out": self.stream.left_out,
            "documents": sorted(documents),
            "seconds": self.seconds,
        }

    def add(self, tallies: Tallies, step: Step) -> None:
        """Tally one step."""
        fired = Fired.of(step.z)
        if len(fired.at):
            self.unit = self.unit or float(fired.value.abs().median())
            tallies.add(step, fired, self.unit, self._config.seed)

    def steps(self, part: Contexts, tokens: Tokens) -> Iterator[Step]:
        """The latents at the tokens of a batch, some whole contexts at a time."""
        context = part.each(part.context)
        position = (part.batch.mask.long().cumsum(1) - 1)[part.chosen].cpu()
        lengths = torch.unique_consecutive(context, return_counts=True)[1].tolist()
        for start, stop in _cuts(lengths, max(1, DENSE // self._sae.d_sae)):
            with self._timed("encode"):
                z = self._sae.encode(tokens.x[start:stop].to(self._config.own_device))
                if not z.isfinite().all():
                    raise UserError(
                        "the SAE makes a NaN of the model's activations: its weights are damaged"
                    )
            now = slice(start, stop)
            yield Step(z, context[now], position[now], tokens.token[now], self.stream.length)

    def _look(self, first: int) -> None:
        """Learn from the contexts before a part what is massive and how large activations are, as
        whoever began with them knows."""
        if self.unit or self._looked >= first:
            return
        for part, tokens in self._batches(self._looked, first - self._looked):
            for step in self.steps(part, tokens):
                if len(fired := Fired.of(step.z).value):
                    self.unit = float(fired.abs().median())
                    self._at = -1  # the rows go on somewhere in the middle
                    return
        self._looked = first

    def _batches(self, first: int, count: int) -> Iterator[tuple[Contexts, Tokens]]:
        if not 0 <= self._at <= first:
            self._rows, self._at = self.stream.rows(self._config.contexts), 0
        rows = itertools.islice(self._rows, first - self._at, None)
        for part in self.stream.contexts(rows, count, BATCH, first):
            with self._timed("forward"):
                read = self.stream.read(part)
            yield read
        self._at = first + count

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[what] += time.perf_counter() - start


def _cuts(lengths: list[int], most: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of pieces of whole contexts, each of at most so many tokens or one context."""
    start = stop = 0
    for length in lengths:
        if stop > start and stop + length - start > most:
            yield start, stop
            start = stop
        stop += length
    if stop > start:
        yield start, stop
