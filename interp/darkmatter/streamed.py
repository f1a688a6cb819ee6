"""The one pass of the dark matter studies, batch by batch, timed by what it does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pandas as pd
from torch import Tensor

from ..errors import UserError
from ..model.subject import Subject
from ..progress import progress
from ..saes.open import Read, Readers, Saes
from ..text.stream import per_token
from .contexts import Contexts, Reader, contexts, corpus_rows
from .downstream import Prices
from .one_pass import OnePass, Tokens, undetermined
from .report import shown_tokens
from .sums import Errors

if TYPE_CHECKING:
    from .measure import DarkMatterConfig

SHARES = (0.4, 0.3)
"""Of the contexts: fitted on, and norms fitted on; the rest is for the test."""
SHOWN = 12
"""Test contexts whose tokens are kept one by one."""
BATCH = 2
"""Contexts a forward pass."""


class Streamed:
    """Everything that is gathered from the stream; `read` reads it."""

    def __init__(
        self,
        config: DarkMatterConfig,
        subject: Subject,
        readers: Readers,
        earlier: tuple[Saes, ...],
    ) -> None:
        self.config, self.subject, self.readers = config, subject, readers
        sites = [readers.site, *(saes.site for saes in earlier)]
        per_token(subject, sites)
        for site in sites[1:]:
            if subject.sites.index(site) >= subject.sites.index(readers.site):
                raise UserError(
                    f"--earlier {site} is not before {readers.site}: give a site that is"
                )
        self.activations = Reader(subject, sites, config.longest)
        self.sums = OnePass(readers, subject.spec.d_vocab, config.ridge, earlier)
        self.prices = Prices(subject, readers.site)
        self.shown: list[pd.DataFrame] = []
        fitted, norms = (round(share * config.contexts) for share in SHARES)
        most = fitted * (config.length - config.skip)
        if most <= readers.d_in and not config.ridge:
            raise undetermined(most, readers.d_in)
        self._counts = (fitted, norms, config.contexts - fitted - norms)
        self.tested = 0
        self._measured: set[int] = set()
        self._tell: Callable[[str], None] = lambda about: None
        self.seconds = dict.fromkeys(("forward", "readers", "regression", "downstream"), 0.0)

    def read(self) -> None:
        config, total, counts = self.config, self.config.contexts, self._counts
        rows = corpus_rows(self.subject, config.corpus, config.length, total)
        with progress(f"SAE errors at {self.readers.site}", total, "contexts") as advance:
            self._tell = lambda about: advance(0, about)
            for number, count in enumerate(counts):
                first, read = sum(counts[:number]), 0
                for part in contexts(self.subject, rows, count, config.skip, BATCH, first):
                    with self._timed("forward"):
                        part, found = self.activations.read(part)
                    if len(found.x):
                        (self._fit, self._norms, self._test)[number](part, found)
                    read += len(found.x)
                    advance(len(part.context))
                self._close(number, read)

    @property
    def documents(self) -> dict[str, int]:
        """How many documents the intervals rest on: of the measures, and of the prices."""
        return {"measured": len(self._measured), "priced": len(set(self.prices.documents))}

    def _close(self, number: int, tokens: int) -> None:
        """End a run of contexts that had `tokens` to read."""
        if not tokens or (number == 2 and not self.sums.scalars.moments[:, 0, 0].any()):
            what = ("to fit on", "to fit norms on", "measured")[number]
            raise UserError(
                f"the contexts {what} have no token past the first {self.config.skip} that counts: "
                "give a --corpus of longer rows, or a smaller --skip"
            )
        if number == 0:
            self.sums.close_fit()
        elif number == 1:
            self.sums.close_norms()

    def _fit(self, part: Contexts, found: Tokens) -> None:
        with self._timed("readers"):
            read = self._errors(found.x)
        with self._timed("regression"):
            self.sums.add_fit(found, read)

    def _norms(self, part: Contexts, found: Tokens) -> None:
        with self._timed("readers"):
            read = self._errors(found.x)
        with self._timed("regression"):
            self.sums.add_norms(found, self.sums.parts(read))

    def _test(self, part: Contexts, found: Tokens) -> None:
        with self._timed("forward"):
            losses = part.losses(self.subject.logits(part.batch))
        with self._timed("readers"):
            read = self._errors(found.x)
        with self._timed("regression"):
            parts = self.sums.parts(read)
            self.sums.add_test(found, parts, losses[part.chosen.cpu()])
        self._price(part, parts)
        if self.tested < SHOWN:
            pieces = [self._piece(token) for token in found.token.tolist()]
            self.shown.append(shown_tokens(self.readers.names, pieces, part, parts, losses))
        self.tested += len(part.context)
        self._measured.update(found.document.tolist())

    def _price(self, part: Contexts, parts: Errors) -> None:
        """Run those contexts again that are to be: evenly spread, so as to be of many documents."""
        count = self._counts[2]
        wanted, at = min(self.config.downstream, count), part.context - sum(self._counts[:2])
        chosen = (at + 1) * wanted // count > at * wanted // count
        if chosen.any():
            tokens, names = part.each(chosen), self.readers.names
            with self._timed("downstream"):
                self.prices.add(
                    part.rows(chosen),
                    Errors(*(values[tokens] for values in parts)),
                    self.sums.shrinkages,
                    lambda at: self._tell(f"price of {names[at]}"),
                )

    def _errors(self, x: Tensor) -> Read:
        read = self.readers.read(x)
        sound = read.error.isfinite().all(2).all(0).tolist()
        for name, fine in zip(self.readers.names, sound, strict=True):
            if not fine:
                raise UserError(f"{name} makes a NaN of x: its weights or the model's are damaged")
        return read

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[what] += time.perf_counter() - start

    def _piece(self, token: int) -> str:
        if self.subject.tokenizer is None:
            return f"#{token}"
        return str(self.subject.tokenizer.decode([token]))
