"""The one pass of the dark matter studies, batch by batch, timed by what it does.

Several workers can read the batches (`batches.py`); the sums are added here, in the stream's order.
It can be stopped: its state is all the sums, and how far it has read.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pandas as pd
from torch import Tensor

from ..errors import UserError
from ..progress import Advance, log, progress
from ..runs.checkpoint import Checkpoint, State
from ..runs.workers import HERE, map_parts
from ..runs.workers_task import Task, Workers
from ..saes.open import ErrorSource, SaeErrors, Saes
from ..text.contexts import Contexts, ContextStream
from ..text.stream import per_token
from .accumulators import SplitErrors
from .batches import MEASURED, Opened, Part, Read, parts_of, read_back
from .downstream import ReplacementCosts
from .enough import FITTED, too_few
from .faults import PlantedFaults
from .regressions import ErrorRegressions, undetermined
from .report import shown_tokens

SHARES = (FITTED, 0.3)
"""Shares of the contexts that are fitted on, and that norms are fitted on; the rest is measured."""
SHOWN = 12
"""Measured contexts whose tokens are stored one by one."""
Beside = Callable[[float], Task[Part]]
"""What workers beside this process read parts with, given the stream's median length."""


class ErrorPass:
    """Everything that is gathered from the stream; `read` reads it.

    Args:
        contexts: how many to read.
        ridge: of the main regression, in mean variances of x.
        downstream: how many measured contexts, evenly spread, are run again with the site replaced.
        earlier: SAEs of sites before, in the order of the stream's further sites.

    Raises:
        UserError: an earlier SAE's site is not before, or there are too few tokens to fit on.
    """

    def __init__(
        self,
        stream: ContextStream,
        saes: ErrorSource,
        contexts: int,
        ridge: float = 0.0,
        downstream: int = 0,
        earlier: tuple[Saes, ...] = (),
    ) -> None:
        self.stream, self.subject, self.saes = stream, stream.subject, saes
        sites = self.subject.sites
        per_token(self.subject, stream.sites)
        for site in stream.sites[1:]:
            if sites.index(site) >= sites.index(saes.site):
                raise UserError(f"--earlier {site} is not before {saes.site}: give a site that is")
        fitted, norms = (round(share * contexts) for share in SHARES)
        at_most = fitted * (stream.length - stream.skip)
        if at_most <= saes.d_in and not ridge:
            raise undetermined(at_most, saes.d_in)
        if few := too_few(at_most, saes.d_in, ridge):
            log.warning("%s", few)
        self._counts = (fitted, norms, contexts - fitted - norms)
        self._downstream = min(downstream, self._counts[2])
        self.regressions = ErrorRegressions(saes, self.subject.spec.d_vocab, ridge, earlier)
        self.costs = ReplacementCosts(self.subject, saes.site)
        self.shown: list[pd.DataFrame] = []
        self._block, self._read, self._counted = 0, 0, 0
        """The block under way; contexts read in all; tokens of the block that counted."""
        self._tested, self.left_out = 0, 0
        self._measured: set[int] = set()
        self._announce: Callable[[str], None] = lambda about: None
        self.seconds = dict.fromkeys(("forward", "readers", "regression", "downstream"), 0.0)

    @property
    def documents(self) -> dict[str, int]:
        """How many documents the intervals of the measures and of the costs rest on."""
        return {"measured": len(self._measured), "priced": len(set(self.costs.documents))}

    @property
    def fitted(self) -> dict[str, int]:
        """How many tokens the linear maps were fitted on, and of how many inputs they are."""
        assert self.regressions.fit_gram is not None
        return {"tokens": self.regressions.fit_gram.count, "inputs": self.saes.d_in}

    def read(
        self,
        checkpoint: Checkpoint | None = None,
        workers: Workers = HERE,
        beside: Beside | None = None,
    ) -> None:
        """Read all contexts, or those after a checkpoint.

        Args:
            workers: who reads them; others than this process need `beside`.

        Raises:
            UserError: the corpus ends before, a block has no token that counts, or a NaN.
        """
        if checkpoint and (state := checkpoint.read()):
            self._restore(state)
        ends = list(itertools.accumulate(self._counts))
        blocks = self._parts(ends)
        label = f"SAE errors at {self.saes.site}"
        with progress(label, ends[-1], "contexts", self._read) as advance:
            left = list(itertools.chain(*blocks.values()))
            made = self._made(left, workers, beside, advance)
            self._announce = lambda about: advance(0, about)
            for number, parts in blocks.items():
                self._block = number
                for part, read in zip(parts, made, strict=False):
                    self._take(number, read)
                    self._read = part.first + len(part.ids)
                    advance(len(part.ids))
                    if checkpoint and checkpoint.due():
                        checkpoint.write(*self._state())
                self._close(number, self._counted)
                self._read, self._counted = ends[number], 0

    def _parts(self, ends: list[int]) -> dict[int, list[Part]]:
        """Those that are left of each block; the blocks end at these contexts."""
        rows = itertools.islice(self.stream.rows(ends[-1]), self._read, None)
        starts = [self._read, *ends[self._block : -1]]
        left = zip(range(self._block, len(ends)), starts, ends[self._block :], strict=True)
        return {number: list(parts_of(rows, number, *span)) for number, *span in left}

    def _made(
        self, parts: list[Part], workers: Workers, beside: Beside | None, advance: Advance
    ) -> Iterator[bytes]:
        """What is read of each part, in order. Until it is known how long activations are, they
        are read here."""
        here, at = Opened(self.stream, self.saes), 0
        while at < len(parts) and not self.stream.median:
            yield here.read(parts[at])
            at += 1
        task = beside(self.stream.median) if beside and workers.beside else here
        for _, made in map_parts(task, parts[at:], workers, advance, ordered=True):
            yield made

    def _take(self, number: int, made: bytes) -> None:
        """What was read of a part of a block."""
        if not made:
            return
        read = read_back(made, self.subject.device)
        self.left_out += read.left_out
        for what, seconds in read.seconds.items():
            self.seconds[what] += seconds
        if len(read.tokens.x):
            self._add(number, read)
        self._counted += len(read.tokens.x)

    def _state(self) -> State:
        tensors = {f"sums/{name}": x for name, x in self.regressions.state().items()}
        tensors |= {f"costs/{name}": x for name, x in self.costs.state().items()}
        if isinstance(self.saes, PlantedFaults):
            tensors["noise"] = self.saes.generator.get_state()
        note = {
            "at": (self._block, self._read, self._counted, self._tested),
            "measured": sorted(self._measured),
            "stream": (self.stream.median, self.left_out),
            "seconds": self.seconds,
            "shown": [frame.to_dict("list") for frame in self.shown],
        }
        return State(tensors, note)

    def _restore(self, state: State) -> None:
        def part(name: str) -> dict[str, Tensor]:
            prefix = f"{name}/"
            held = state.tensors.items()
            return {key.removeprefix(prefix): x for key, x in held if key.startswith(prefix)}

        self.regressions.restore(part("sums"))
        self.costs.restore(part("costs"))
        if isinstance(self.saes, PlantedFaults):
            self.saes.generator.set_state(state.tensors["noise"])
        self._block, self._read, self._counted, self._tested = state.note["at"]
        self._measured = set(state.note["measured"])
        self.stream.median, self.left_out = state.note["stream"]
        self.seconds = state.note["seconds"]
        self.shown = list(map(pd.DataFrame, state.note["shown"]))
        if self._block > 0:
            self.regressions.close_fit()
        if self._block > 1:
            self.regressions.close_norms()

    def _close(self, number: int, tokens: int) -> None:
        """End a block of contexts with `tokens` that count."""
        if not tokens or (number == 2 and not self.regressions.scalars.moments[:, 0, 0].any()):
            what = ("to fit on", "to fit norms on", "measured")[number]
            raise UserError(
                f"the contexts {what} have no token past the first {self.stream.skip} that counts: "
                "give a --corpus of longer rows, or a smaller --skip"
            )
        if number == 0:
            self.regressions.close_fit()
        elif number == 1:
            self.regressions.close_norms()

    def _errors(self, read: Read) -> SaeErrors:
        errors = read.errors or self.saes.errors(read.tokens.x)
        sound = errors.error.isfinite().all(2).all(0).tolist()
        for name, fine in zip(self.saes.names, sound, strict=True):
            if not fine:
                raise UserError(f"{name} makes a NaN of x: its weights or the model's are damaged")
        return errors

    def _add(self, number: int, read: Read) -> None:
        """Contexts of the block to fit on (0), to fit norms on (1) or to measure (2)."""
        part, tokens, losses = read.contexts, read.tokens, read.losses
        with self._timed("readers"):
            errors = self._errors(read)
        with self._timed("regression"):
            if number == 0:
                return self.regressions.add_fit(tokens, errors)
            split = self.regressions.split(errors)
            if number < MEASURED:
                return self.regressions.add_norms(tokens, split)
            assert losses is not None
            self.regressions.add_test(tokens, split, losses[part.chosen.cpu()])
        self._replace(part, split)
        if self._tested < SHOWN:
            pieces = [self.subject.text(token[None]) for token in tokens.token]
            self.shown.append(shown_tokens(self.saes.names, pieces, part, split, losses))
        self._tested += len(part.context)
        self._measured.update(tokens.document.tolist())
        return None

    def _replace(self, part: Contexts, split: SplitErrors) -> None:
        """Run contexts again with the site replaced: evenly spread ones, so of many documents."""
        wanted, count = self._downstream, self._counts[2]
        at = part.context - sum(self._counts[:2])
        chosen = (at + 1) * wanted // count > at * wanted // count
        if chosen.any():
            tokens = part.each(chosen)
            with self._timed("downstream"):
                self.costs.add(
                    part.rows(chosen),
                    SplitErrors(*(values[tokens] for values in split)),
                    self.regressions.shrinkages,
                    lambda sae: self._announce(f"cost of {self.saes.names[sae]}"),
                )

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[what] += time.perf_counter() - start
