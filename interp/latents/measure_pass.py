"""The one pass of `saes measure` over a corpus: reconstructions of all tokens, losses of some.

The first tenth of the contexts gives the mean of x that mean ablation puts in the site's place; the
others are measured. It can be stopped: its state is all the sums, and how far it has read.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..errors import UserError
from ..progress import progress
from ..runs.checkpoint import Checkpoint, State
from ..saes.open import Saes
from ..text.contexts import Contexts, ContextStream, Tokens
from ..text.stream import per_token
from .reconstruction import ReconstructionSums
from .splicing import SplicedLosses

BATCH = 2
"""Contexts in a forward pass."""


class MeasurePass:
    """Everything that is gathered from the stream; `read` reads it.

    Args:
        contexts: how many to read.
        spliced: how many measured contexts, evenly spread, are run again with the site replaced.
    """

    def __init__(self, stream: ContextStream, saes: Saes, contexts: int, spliced: int) -> None:
        self.stream, self.subject, self.saes = stream, stream.subject, saes
        per_token(self.subject, stream.sites)
        averaged = max(1, contexts // 10)
        self._counts = (averaged, contexts - averaged)
        self._spliced = min(spliced, self._counts[1])
        self.sums = ReconstructionSums.empty(saes.d_in, saes.widths)
        self.losses = SplicedLosses(self.subject, saes.site)
        self._total, self._averaged = torch.zeros(saes.d_in, dtype=torch.float64), 0
        self._read, self.documents = 0, set[int]()
        self.seconds = dict.fromkeys(("forward", "saes", "spliced"), 0.0)

    @property
    def tokens(self) -> int:
        """How many were measured."""
        return int(self.sums.count.sum())

    def read(self, checkpoint: Checkpoint) -> None:
        """Read all contexts, or those after a checkpoint.

        Raises:
            UserError: the corpus ends before, no token of a part counts, or a NaN.
        """
        if state := checkpoint.read():
            self._restore(state)
        ends = list(itertools.accumulate(self._counts))
        rows = itertools.islice(self.stream.rows(ends[-1]), self._read, None)
        label = f"SAEs at {self.saes.site}"
        with progress(label, ends[-1], "contexts", self._read) as advance:
            for end in (each for each in ends if each > self._read):
                for part in self.stream.contexts(rows, end - self._read, BATCH, self._read):
                    with self._timed("forward"):
                        part, tokens = self.stream.read(part)
                    if len(tokens.x):
                        self._add(part, tokens)
                    self._read = int(part.context[-1]) + 1
                    advance(len(part.context))
                    if checkpoint.due():
                        checkpoint.write(*self._state())
                self._read = end
        if not self.tokens or not self._averaged:
            raise UserError(
                f"no measured context has a token past the first {self.stream.skip} that counts: "
                "give a --corpus of longer rows, or a smaller --skip"
            )
        checkpoint.write(*self._state())

    def _state(self) -> State:
        tensors = {f"sums/{name}": x for name, x in self.sums.state().items()}
        tensors |= {f"losses/{name}": x for name, x in self.losses.state().items()}
        note = {
            "at": (self._read, self._averaged),
            "documents": sorted(self.documents),
            "stream": (self.stream.median, self.stream.left_out),
            "seconds": self.seconds,
        }
        return State(tensors | {"total": self._total}, note)

    def _restore(self, state: State) -> None:
        def part(name: str) -> dict[str, Tensor]:
            prefix = f"{name}/"
            held = state.tensors.items()
            return {key.removeprefix(prefix): x for key, x in held if key.startswith(prefix)}

        self.sums.restore(part("sums"))
        self.losses.restore(part("losses"))
        self._total = state.tensors["total"]
        self._read, self._averaged = state.note["at"]
        self.documents = set(state.note["documents"])
        self.stream.median, self.stream.left_out = state.note["stream"]
        self.seconds = state.note["seconds"]

    def _add(self, part: Contexts, tokens: Tokens) -> None:
        x = next(iter(self.saes.by_name.values())).read(tokens.x)
        if int(part.context[0]) < self._counts[0]:
            self._total += x.double().sum(0)
            self._averaged += len(x)
            return
        with self._timed("saes"):
            self.sums.add_x(tokens.document, x)
            given = [self._reconstructed(at, tokens) for at in range(len(self.saes.by_name))]
        self.documents.update(tokens.document.tolist())
        self._splice(part, x, given)

    def _reconstructed(self, at: int, tokens: Tokens) -> Tensor:
        name, sae = list(self.saes.by_name.items())[at]
        start, chunks = 0, []
        for read, z, x_hat in sae.reconstructions(tokens.x):
            if not x_hat.isfinite().all():
                raise UserError(
                    f"{name} makes a NaN of x: its weights or the model's are damaged; replace them"
                )
            document = tokens.document[start : start + len(read)]
            self.sums.add(at, document, read, z, x_hat)
            start += len(read)
            chunks.append(x_hat)
        return torch.cat(chunks)

    def _splice(self, part: Contexts, x: Tensor, given: list[Tensor]) -> None:
        """Run contexts again with the site replaced: evenly spread ones, so of many documents."""
        wanted, (averaged, count) = self._spliced, self._counts
        at = part.context - averaged
        chosen = ((at + 1) * wanted // count > at * wanted // count) & part.chosen.any(1)
        if not chosen.any():
            return
        own = part.each(chosen)
        mean = (self._total / self._averaged).float()
        with self._timed("spliced"):
            self.losses.add(part.rows(chosen), x[own], mean, [each[own] for each in given])

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[what] += time.perf_counter() - start
