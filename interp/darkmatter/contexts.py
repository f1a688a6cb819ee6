"""The stream that the dark matter studies read: contexts of token ids and activations at a site."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from ..errors import UserError
from ..model.site import Site
from ..model.subject import Batch, Subject
from ..text.corpus import id_rows, read_corpus, token_rows
from .one_pass import Tokens

Row = tuple[int, list[int]]
"""The number of the document that a row is of, and its token ids."""


def corpus_rows(
    subject: Subject, corpus: str, length: int, count: int | None = None
) -> Iterator[Row]:
    """The first `count` rows of a corpus (all of them by default): texts cut in rows of `length`
    ids, or stored rows of ids (a .safetensors file), of `length` ids at most, each of which is a
    document.

    Raises:
        UserError: as `read_corpus` and `id_rows`; a model without a tokenizer and a corpus of text.
    """
    if corpus.endswith(".safetensors"):
        cut = (row[:length] for row in itertools.islice(id_rows(corpus), count))
        return enumerate(cut)
    if subject.tokenizer is None:
        raise UserError("this model has no tokenizer: give a --corpus of ids (.safetensors)")
    encode = subject.tokenizer.encode
    return token_rows(
        read_corpus(corpus or None),
        lambda text: list(encode(text, add_special_tokens=False)),
        length,
        None,
        sys.maxsize if count is None else count * length,
    ).numbered


class Contexts(NamedTuple):
    """A batch of contexts and which of its positions count."""

    batch: Batch
    chosen: Bool[Tensor, "batch pos"]
    context: Int[Tensor, " batch"]
    document: Int[Tensor, " batch"]

    def tokens(self, subject: Subject, sites: list[Site]) -> Tokens:
        """Activations at the first of the sites, and at those before it; in float32."""
        found = subject.capture(self.batch, sites)
        x, *before = (found[site][self.chosen].float().cpu() for site in sites)
        document, token = self.each(self.document), self.batch.ids[self.chosen].cpu()
        return Tokens(x, document, token, tuple(before))

    def each(self, value: Tensor) -> Shaped[Tensor, " n"]:
        """A value of every context [batch], for every chosen position."""
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
        """Cross-entropy of the next token in nats; NaN where there is none, or for padding."""
        found = torch.full(self.batch.ids.shape, torch.nan)
        for row, (ids, mask) in enumerate(zip(self.batch.ids, self.batch.mask, strict=True)):
            at = mask[:-1] & mask[1:]
            own = logits[row, :-1][at].float()
            found[row, :-1][at.cpu()] = torch.nn.functional.cross_entropy(
                own, ids[1:][at], reduction="none"
            ).cpu()
        return found


@dataclass
class Reader:
    """Reads activations, without the tokens whose activation is a massive one.

    Attention sinks are not only at a context's beginning, and one whose activation is a hundred
    times longer than the others' has the weight of ten thousand of them in every sum of squares.
    """

    subject: Subject
    sites: list[Site]
    longest: float
    """In medians of |x|, taken over the first batch; longer ones are left out. 0: none are."""
    median: float = 0.0
    left_out: int = 0

    def read(self, part: Contexts) -> tuple[Contexts, Tokens]:
        """The contexts without the positions left out, and their activations.

        Raises:
            UserError: a NaN among them.
        """
        found = part.tokens(self.subject, self.sites)
        for site, values in zip(self.sites, (found.x, *found.before), strict=True):
            if not values.isfinite().all():
                raise UserError(f"the model makes a NaN at {site}: its weights are damaged")
        if not self.longest:
            return part, found
        lengths = found.x.norm(dim=1)
        self.median = self.median or float(lengths.median())
        kept = lengths <= self.longest * self.median
        self.left_out += int((~kept).sum())
        x, document, token, before = found
        usual = Tokens(x[kept], document[kept], token[kept], tuple(b[kept] for b in before))
        return part.only(kept), usual


def contexts(
    subject: Subject, rows: Iterator[Row], count: int, skip: int, size: int, first: int = 0
) -> Iterator[Contexts]:
    """`count` contexts in batches of `size`, numbered from `first`; the first `skip` positions of
    each do not count, and batches without any others are passed over.

    Raises:
        UserError: the rows end before.
    """
    for start in range(0, count, size):
        chosen = list(itertools.islice(rows, min(size, count - start)))
        if len(chosen) < min(size, count - start):
            raise UserError(
                f"the corpus ended after {first + start + len(chosen)} contexts: ask for fewer "
                "--tokens, or give more text"
            )
        batch = subject.pad([ids for _, ids in chosen])
        position = batch.mask.long().cumsum(1) - 1
        counts = batch.mask & (position >= skip)
        if not counts.any():
            continue
        context = first + start + torch.arange(len(chosen), device=counts.device)
        document = torch.tensor([number for number, _ in chosen], device=counts.device)
        yield Contexts(batch, counts, context, document)
