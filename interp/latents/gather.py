"""The one pass of a survey over its corpus, step by step; it can be stopped between any two."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from ..progress import progress
from ..runs.checkpoint import Checkpoint, State
from ..saes import Sae
from ..text.contexts import Contexts, ContextStream, Tokens
from .tallies import BinExamples, Fired, FiringTokens, Numbers, Step, TopExamples, bin_edges

BATCH = 8
"""Contexts in a forward pass."""
DENSE = 2**26
"""Numbers that a step may have, as latents [tokens, n] (0.25 GiB): it is cut between contexts. One
context is a step at least."""
STAGES = ("forward", "encode", "tally")


class SurveyPass:
    """What a stream of contexts says of the latents of an SAE.

    Args:
        contexts: how many to read.
        top: how many of the largest activations to keep of each latent.
        seed: of the examples that are drawn at random.
    """

    def __init__(
        self, stream: ContextStream, sae: Sae, contexts: int, top: int, seed: int, device: str
    ) -> None:
        self.stream, self._sae, self._contexts = stream, sae, contexts
        self._seed, self._device = seed, device
        if device != "cpu" and isinstance(sae.inner, torch.nn.Module):
            sae.inner.to(device)
        n = sae.d_sae
        self.numbers, self.tokens = Numbers.empty(n), FiringTokens.empty(n)
        self.top, self.binned = TopExamples.empty(n, top), BinExamples.empty(n)
        self.unit = 0.0
        """The median size of the activations of the first step: the middle of the histograms."""
        self.counted, self._read = 0, 0
        """Tokens that counted; contexts read."""
        self.documents: set[int] = set()
        self.seconds = dict.fromkeys(STAGES, 0.0)

    def read(self, checkpoint: Checkpoint) -> None:
        """Read all contexts, or those after a checkpoint; the last state stays in the checkpoint.

        Raises:
            UserError: as `ContextStream.contexts` and `read`; an SAE that makes a NaN; no token
                that counts.
        """
        if state := checkpoint.read():
            self._restore(state)
        rows = itertools.islice(self.stream.rows(self._contexts), self._read, None)
        label = f"latents at {self.stream.sites[0]}"
        with progress(label, self._contexts, "contexts", self._read) as advance:
            left = self._contexts - self._read
            for part in self.stream.contexts(rows, left, BATCH, self._read):
                with self._timed("forward"):
                    part, tokens = self.stream.read(part)
                for step in self.steps(part, tokens):
                    with self._timed("tally"):
                        self.add(step)
                self.documents.update(tokens.document.tolist())
                self._read = int(part.context[-1]) + 1
                advance(len(part.context))
                if checkpoint.due():
                    checkpoint.write(*self._state())
        if not self.counted:
            raise UserError(
                f"no token past the first {self.stream.skip} of a context counts: give a --corpus "
                "of longer rows, or a smaller --skip"
            )
        checkpoint.write(*self._state())

    def steps(self, part: Contexts, tokens: Tokens) -> Iterator[Step]:
        """The latents at the tokens of a batch, some whole contexts at a time."""
        context = part.each(part.context)
        position = (part.batch.mask.long().cumsum(1) - 1)[part.chosen].cpu()
        lengths = torch.unique_consecutive(context, return_counts=True)[1].tolist()
        for start, stop in _cuts(lengths, max(1, DENSE // self._sae.d_sae)):
            with self._timed("encode"):
                z = self._sae.encode(tokens.x[start:stop].to(self._device))
                if not z.isfinite().all():
                    raise UserError(
                        "the SAE makes a NaN of the model's activations: its weights are damaged"
                    )
            now = slice(start, stop)
            yield Step(z, context[now], position[now], tokens.token[now], self.stream.length)

    def add(self, step: Step) -> None:
        """Tally one step."""
        fired = Fired.of(step.z)
        self.counted += len(step.context)
        if not len(fired.at):
            return
        self.unit = self.unit or float(fired.value.abs().median())
        bins = torch.bucketize(fired.value.abs(), bin_edges(self.unit), right=True)
        self.numbers.add(fired, bins)
        self.top.add(step, fired)
        self.binned.add(step, fired, bins, self._seed)
        self.tokens.add(step, fired)

    @property
    def edges(self) -> list[float]:
        """Between the bins of the histograms."""
        return bin_edges(self.unit).tolist()

    def _parts(self) -> dict[str, Any]:
        kept = ("numbers", "top", "binned", "tokens")
        return {name: getattr(self, name) for name in kept}

    def _state(self) -> State:
        tensors: dict[str, Tensor] = {}
        for name, part in self._parts().items():
            tensors |= part.state(name)
        note = {
            "at": (self._read, self.counted, self.unit),
            "stream": (self.stream.median, self.stream.left_out),
            "documents": sorted(self.documents),
            "seconds": self.seconds,
        }
        return State(tensors, note)

    def _restore(self, state: State) -> None:
        for name, part in self._parts().items():
            part.restore(name, state.tensors)
        self._read, self.counted, self.unit = state.note["at"]
        self.stream.median, self.stream.left_out = state.note["stream"]
        self.documents = set(state.note["documents"])
        self.seconds = state.note["seconds"]

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
