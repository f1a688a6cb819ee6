"""The stream that the dark matter studies read: contexts of token ids and activations at a site."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..corpus import id_rows, read_corpus, token_rows
from ..errors import UserError
from ..site import Site
from ..subject import Batch, Subject
from .one_pass import Tokens


def corpus_rows(subject: Subject, corpus: str, length: int, count: int) -> Iterator[list[int]]:
    """The first `count` rows of a corpus: texts cut in rows of `length` ids, or stored rows of ids
    (a .safetensors file), of `length` ids at most.

    Raises:
        UserError: as `read_corpus` and `id_rows`; a model without a tokenizer and a corpus of text.
    """
    if corpus.endswith(".safetensors"):
        return (row[:length] for row in itertools.islice(id_rows(corpus), count))
    if subject.tokenizer is None:
        raise UserError("this model has no tokenizer: give a --corpus of ids (.safetensors)")
    encode = subject.tokenizer.encode
    return token_rows(
        read_corpus(corpus or None),
        lambda text: list(encode(text, add_special_tokens=False)),
        length,
        None,
        count * length,
    )


class Contexts(NamedTuple):
    """A batch of contexts and which of its positions count."""

    batch: Batch
    chosen: Bool[Tensor, "batch pos"]
    context: Int[Tensor, "batch pos"]

    def tokens(self, subject: Subject, sites: list[Site]) -> Tokens:
        """Activations at the first of the sites, and at those before it; in float32."""
        found = subject.capture(self.batch, sites)
        x, *before = (found[site][self.chosen].float().cpu() for site in sites)
        chosen = self.chosen
        return Tokens(x, self.context[chosen].cpu(), self.batch.ids[chosen].cpu(), tuple(before))

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
        lengths = found.x.norm(dim=1)
        if not lengths.isfinite().all():
            raise UserError(f"the model makes a NaN at {self.sites[0]}: its weights are damaged")
        if not self.longest:
            return part, found
        self.median = self.median or float(lengths.median())
        kept = lengths <= self.longest * self.median
        self.left_out += int((~kept).sum())
        x, context, token, before = found
        usual = Tokens(x[kept], context[kept], token[kept], tuple(b[kept] for b in before))
        return part.only(kept), usual


def contexts(
    subject: Subject, rows: Iterator[list[int]], count: int, skip: int, size: int, first: int = 0
) -> Iterator[Contexts]:
    """`count` contexts in batches of `size`, numbered from `first`; the first `skip` positions of
    each do not count.

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
        batch = subject.pad(chosen)
        position = batch.mask.long().cumsum(1) - 1
        number = first + start + torch.arange(len(chosen), device=batch.ids.device)
        context = number[:, None].expand_as(batch.ids)
        yield Contexts(batch, batch.mask & (position >= skip), context)
