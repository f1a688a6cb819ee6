"""What SAEs are trained on: shuffled activations of a text, and of rows that are held out.

Left out are special tokens, massive activations, and the first position of every row, an attention
sink whose activation is about 160 times longer than the others' (SmolLM2, 14.resid_post: 24,564
against 156 on average).
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from ..errors import UserError
from ..model.site import Site
from ..model.subject import Subject
from ..text.contexts import ContextStream
from ..text.shuffled import shuffled

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
        measured = list(self._stream.rows(MEASURED))
        # read first: they tell what is massive, wherever the training begins
        self.held_out: dict[Site, Tensor] = self._stream.by_site(iter(measured), len(measured))

    def batches(self, size: int, tokens: int, seed: int, first: int = 0) -> Batches:
        """Activations [size, d] in float32 from batch `first` on, of what is not held out.

        Args:
            tokens: how many will be asked for; pools are no larger.

        Raises:
            UserError: there is not one batch.
        """
        rows = itertools.islice(self._stream.rows(), HELD_OUT, None)
        read = False
        for batch in shuffled(self._stream, rows, size, min(POOL, tokens), first, seed):
            read = True
            yield batch
        if not (read or first):
            raise UserError(
                f"the text does not fill one batch of {size} tokens past the first {HELD_OUT} rows "
                f"of {self._stream.length} tokens, which are held out: give more text or shorter "
                "rows"
            )
