"""What SAEs are trained on: shuffled activations of a text, and of rows that are held out.

Left out are special tokens, massive activations, and the first position of every row, an attention
sink whose activation is about 160 times longer than the others' (SmolLM2, 14.resid_post: 24,564
against 156 on average).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from ..errors import UserError
from ..model.site import Site
from ..model.subject import Subject
from ..text.contexts import ContextStream
from ..text.shuffled import READ, unread

if TYPE_CHECKING:
    from torch import Tensor

    from .train import Batches

HELD_OUT = 512
"""Rows at the corpus's beginning that are not trained on."""
MEASURED = 64
"""How many of them SAEs are measured on."""
POOL = 2**15
"""Tokens that are shuffled together, at least."""


class TextFeed:
    """Activations of a corpus in rows of `length` ids, read as they are asked for."""

    def __init__(self, subject: Subject, sites: list[Site], corpus: str, length: int) -> None:
        self._stream = ContextStream(subject, sites, corpus, length)

    @cached_property
    def held_out(self) -> dict[Site, Tensor]:
        """Activations of the rows that SAEs are measured on.

        Raises:
            UserError: none of their tokens counts.
        """
        measured = list(self._stream.rows(MEASURED))
        return self._stream.by_site(iter(measured), len(measured))

    def batches(self, size: int, tokens: int, seed: int, first: int = 0) -> Batches:
        """Activations [size, d] in float32 from batch `first` on, of what is not held out.

        Args:
            tokens: how many will be asked for; pools are no larger.

        Raises:
            UserError: there is not one batch.
        """
        read = False
        for batch in itertools.islice(self.unread(size, tokens, seed), first, None):
            read = True
            yield batch()
        if not (read or first):
            raise too_short(size, self._stream.length)

    def unread(
        self, size: int, tokens: int, seed: int
    ) -> Iterator[Callable[[], dict[Site, Tensor]]]:
        """All `batches`, each read when it is called."""
        if not self._stream.median:
            # the first rows tell what is massive, wherever the batches begin
            for first in itertools.islice(
                self._stream.contexts(self._stream.rows(), None, READ), 1
            ):
                self._stream.read(first)
        rows = itertools.islice(self._stream.rows(), HELD_OUT, None)
        return unread(self._stream, rows, size, min(POOL, tokens), seed)


def too_short(size: int, length: int) -> UserError:
    """The error where there is not one batch of `size` tokens, of rows of some length."""
    return UserError(
        f"the text does not fill one batch of {size} tokens past the first {HELD_OUT} rows "
        f"of {length} tokens, which are held out: give more text or shorter rows"
    )
