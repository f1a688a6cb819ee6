"""One text's pass through a model, and all that is kept of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import UserError
from ..model.batch import Batch
from ..model.prompting import Bos
from ..model.readout import Readout, open_readout
from ..model.site import Site
from ..model.subject import Subject
from ..model.vocabulary import token_strings
from .pair import position_of

KINDS = ("attn_out", "head_z", "head_v", "attn_pattern", "mlp_post", "mlp_out", "resid_post")
"""The sites of every layer that are kept, where a model has them."""
LONGEST = 400
"""Tokens of a text whose activations are kept in memory."""
EMBEDDED, END, LOGITS = Site("resid_pre", 0), Site("final_norm_in"), Site("logits")


class Opened:
    """A model, with its weights at hand in memory.

    Raises:
        UserError: another backend than the native one, or a model that came from no folder.
    """

    def __init__(self, subject: Subject) -> None:
        if subject.weights is None:
            raise UserError("this model is in memory alone: save it to a folder and open that")
        self.subject = subject
        self.weights = subject.loaded
        self.weights.folder = subject.weights.folder
        self._last: dict[tuple[tuple[int, ...], str], Passed] = {}

    @classmethod
    def of(cls, subject: Subject) -> Opened:
        """The one that is kept beside a model."""
        made = subject.beside.get("microscope") or cls(subject)
        subject.beside["microscope"] = made
        return cast(Opened, made)

    @cached_property
    def readout(self) -> Readout:
        """The unembedding's rows that stand for a token."""
        return open_readout(self.weights)

    @cached_property
    def strings(self) -> list[str]:
        """The text of every token id."""
        return token_strings(self.weights.folder, self.weights.spec.d_vocab)

    @cached_property
    def mean_row(self) -> Float[Tensor, " d_model"]:
        """The mean of the unembedding over the vocabulary, in float64."""
        W_U = self.weights.W_U()
        sums = [part.double().sum(0) for part in torch.split(W_U, 1 << 14)]
        return torch.stack(sums).sum(0) / len(W_U)

    def passed(self, text: str) -> Passed:
        """The pass of a text; the last two are kept.

        Raises:
            UserError: as the function `passed`.
        """
        key = (self.subject.prompting.start, text)
        made = self._last.pop(key, None) or passed(self, text, LONGEST)
        self._last = dict([*self._last.items(), (key, made)][-2:])
        return made

    @contextmanager
    def fed(self, bos: Bos) -> Iterator[Subject]:
        """The model, with texts fed as an SAE asks for them, until the block is left."""
        own = self.subject.prompting
        self.subject.prompting = own.fed(bos)
        try:
            yield self.subject
        finally:
            self.subject.prompting = own


@dataclass(frozen=True)
class Passed:
    """A text's tokens, and the activations of one pass over them, on the CPU."""

    opened: Opened
    batch: Batch
    seen: Mapping[Site, Float[Tensor, "pos ..."]]
    """Of heads' patterns [heads, query, key]."""

    @property
    def ids(self) -> Int[Tensor, " pos"]:
        return self.batch.ids[0].cpu()

    def logits(self, position: int) -> Float[Tensor, " d_vocab"]:
        """Of the token after a position, in float64: the model's own, times its factor, before any
        soft cap."""
        return self.seen[LOGITS][position].double() * self.opened.weights.spec.logit_scale

    def logprobs(self, position: int) -> Float[Tensor, " d_vocab"]:
        """Of the token after a position, in float64; soft cap and all."""
        logits = self.seen[LOGITS][position].double()
        return self.opened.weights.spec.capped(logits).log_softmax(-1)

    @cached_property
    def tokens(self) -> list[str]:
        """Of the text, BOS and other special ones too."""
        return [self.opened.strings[token] for token in self.ids.tolist()]

    def __len__(self) -> int:
        return self.batch.ids.shape[1]

    def position(self, asked: int) -> int:
        """A position from 0; a negative one counts from the end.

        Raises:
            UserError: the text has no such token.
        """
        return position_of(asked, len(self))


def passed(opened: Opened, text: str, most: int | None = None) -> Passed:
    """Run a text through a model, once; edits in scope apply.

    Args:
        most: how many tokens it may have.

    Raises:
        UserError: an empty text, or one that is too long.
    """
    subject = opened.subject
    batch = subject.tokens(text)
    if most is not None and batch.ids.shape[1] > most:
        raise UserError(
            f"the text has {batch.ids.shape[1]} tokens, and {most} can be shown: shorten it"
        )
    return seen_of(opened, batch)


def seen_of(opened: Opened, batch: Batch) -> Passed:
    """One pass over a batch of one text."""
    wanted = [site for site in opened.subject.sites if site.kind in KINDS]
    found = opened.subject.capture(batch, [EMBEDDED, *wanted, END, LOGITS])
    return Passed(opened, batch, {site: x[0].cpu() for site, x in found.items()})
