"""Contexts of token ids from a corpus, and activations of their tokens at some sites."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from ..errors import UserError
from ..model.batch import Batch
from ..model.prompting import Prompting
from ..model.site import Site
from ..model.subject import Subject
from ..progress import progress
from .corpus import id_rows, read_corpus, token_rows

Row = tuple[int, list[int]]
"""The number of the document that a row is from, and its token ids."""


class Feeder(Protocol):
    """What knows how text is fed to a model: an opened one, or a study of one."""

    @property
    def prompting(self) -> Prompting: ...


def corpus_rows(
    feeder: Feeder, corpus: str, length: int, count: int | None = None
) -> Iterator[Row]:
    """The first `count` rows of a corpus (by default all): texts cut into rows of `length` ids, or
    stored rows of ids (a .safetensors file), cut to `length` ids, each of which is a document.

    Raises:
        UserError: as `read_corpus` and `id_rows`; a model without a tokenizer and a corpus of text.
    """
    if corpus.endswith(".safetensors"):
        return enumerate(row[:length] for row in itertools.islice(id_rows(corpus), count))
    limit = sys.maxsize if count is None else count * length
    return token_rows(read_corpus(corpus or None), feeder.prompting, length, limit).numbered


def ended(contexts: int) -> UserError:
    """The error where a corpus has no more than so many contexts."""
    return UserError(
        f"the corpus ended after {contexts} contexts: ask for fewer --tokens, or give more text"
    )


class Tokens(NamedTuple):
    """Activations in float32, and the tokens they belong to."""

    x: Float[Tensor, "n d"]
    document: Int[Tensor, " n"]
    token: Int[Tensor, " n"]
    before: tuple[Float[Tensor, "n d"], ...] = ()
    """Activations at the other sites."""


class Contexts(NamedTuple):
    """A batch of contexts and which of its positions count."""

    batch: Batch
    chosen: Bool[Tensor, "batch pos"]
    context: Int[Tensor, " batch"]
    """The context's number in the stream."""
    document: Int[Tensor, " batch"]
    """The number of the document that it is from."""

    def each(self, value: Tensor) -> Shaped[Tensor, " n"]:
        """A value of every context [batch], repeated for its chosen positions."""
        return value[:, None].expand_as(self.chosen)[self.chosen].cpu()

    def rows(self, kept: Bool[Tensor, " batch"]) -> Contexts:
        """Some of the contexts alone."""
        batch = Batch(self.batch.ids[kept], self.batch.mask[kept])
        return Contexts(batch, self.chosen[kept], self.context[kept], self.document[kept])

    def only(self, kept: Bool[Tensor, " n"]) -> Contexts:
        """With some of the chosen positions dropped."""
        chosen = self.chosen.clone()
        chosen[self.chosen] = kept.to(chosen.device)
        return self._replace(chosen=chosen)

    def losses(self, logits: Float[Tensor, "batch pos d_vocab"]) -> Float[Tensor, "batch pos"]:
        """Cross-entropy of the next token in nats; NaN for padding and where no token follows."""
        losses = torch.full(self.batch.ids.shape, torch.nan)
        for row, (ids, mask) in enumerate(zip(self.batch.ids, self.batch.mask, strict=True)):
            at = mask[:-1] & mask[1:]
            own = logits[row, :-1][at].float()
            losses[row, :-1][at.cpu()] = torch.nn.functional.cross_entropy(
                own, ids[1:][at], reduction="none"
            ).cpu()
        return losses


@dataclass
class ContextStream:
    """Contexts of a corpus and their activations, without tokens whose activation is massive.

    Attention sinks are not only at the beginning of a context, and one whose activation is a
    hundred times longer than the others' weighs as much as ten thousand of them in every sum of
    squares.
    """

    subject: Subject
    sites: list[Site]
    """Where activations are read; the first decides what is massive."""
    corpus: str
    length: int
    """Tokens in a context."""
    skip: int = 1
    """Positions at the beginning of a context that do not count."""
    longest: float = 10.0
    """Longer activations are left out, in medians of |x| over the first batch (0: none are)."""
    no_data: tuple[int, ...] | None = None
    """Ids that do not count; by default the model's special tokens."""
    positions: Callable[[int], Collection[int]] = range
    """Those of a context of some length that count, but for `skip`."""
    median: float = 0.0
    left_out: int = 0

    def rows(self, count: int | None = None) -> Iterator[Row]:
        """The first `count` rows of the corpus; by default all."""
        return corpus_rows(self.subject, self.corpus, self.length, count)

    def contexts(
        self, rows: Iterator[Row], count: int | None, size: int, first: int = 0
    ) -> Iterator[Contexts]:
        """The next `count` rows (None: all) in batches of `size`, numbered from `first`. A batch
        none of whose positions counts is passed over.

        Raises:
            UserError: the rows end before.
        """
        for start in itertools.count(0, size) if count is None else range(0, count, size):
            wanted = size if count is None else min(size, count - start)
            taken = list(itertools.islice(rows, wanted))
            if count is not None and len(taken) < wanted:
                raise ended(first + start + len(taken))
            if not taken:
                return
            batch = self.subject.pad([ids for _, ids in taken])
            counts = self._counted(batch)
            if not counts.any():
                continue
            context = first + start + torch.arange(len(taken), device=counts.device)
            document = torch.tensor([number for number, _ in taken], device=counts.device)
            yield Contexts(batch, counts, context, document)

    def _counted(self, batch: Batch) -> Bool[Tensor, "batch pos"]:
        counts = self.subject.counted(batch, self.no_data).cpu()
        for row, mask in zip(counts, batch.mask.cpu(), strict=True):
            inside = mask.nonzero()[:, 0]
            outside = torch.ones_like(inside, dtype=torch.bool)
            outside[[at for at in self.positions(len(inside)) if at >= self.skip]] = False
            row[inside[outside]] = False
        return counts.to(batch.mask.device)

    def read(self, part: Contexts) -> tuple[Contexts, Tokens]:
        """The contexts without positions of massive activations, and the other activations.

        Raises:
            UserError: one of them is a NaN.
        """
        captured = self.subject.capture(part.batch, self.sites)
        x, *before = (captured[s][part.chosen].flatten(1).float().cpu() for s in self.sites)
        for site, values in zip(self.sites, (x, *before), strict=True):
            if not values.isfinite().all():
                raise UserError(f"the model makes a NaN at {site}: its weights are damaged")
        lengths = x.norm(dim=1)
        self.median = self.median or float(lengths.median())
        kept = lengths <= (self.longest * self.median or torch.inf)
        self.left_out += int((~kept).sum())
        part = part.only(kept)
        document, token = part.each(part.document), part.batch.ids[part.chosen].cpu()
        return part, Tokens(x[kept], document, token, tuple(values[kept] for values in before))

    def activations(
        self, rows: Iterator[Row], count: int, first: int = 0
    ) -> Float[Tensor, "tokens d"]:
        """Activations at the first site of the next `count` rows, numbered from `first`.

        Raises:
            UserError: as `contexts` and `read`; none of the positions counts.
        """
        return self.by_site(rows, count, first)[self.sites[0]]

    def by_site(
        self, rows: Iterator[Row], count: int, first: int = 0
    ) -> dict[Site, Float[Tensor, "tokens d"]]:
        """As `activations`, at every site."""
        parts = []
        with progress(f"read {self.sites[0]}", count, "contexts") as advance:
            for part in self.contexts(rows, count, 8, first):
                _, tokens = self.read(part)
                parts.append((tokens.x, *tokens.before))
                advance(len(part.context))
        if not parts:
            raise UserError(f"no context is longer than --skip {self.skip}: give a smaller one")
        return dict(zip(self.sites, map(torch.cat, zip(*parts, strict=True)), strict=True))
