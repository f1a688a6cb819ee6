"""How the prompt page's text is fed where an SAE or a survey reads it: as they ask, which may be
with a BOS that the page's own pass does not have, or without the one that it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import streamlit as st

from interp.apps.prompt_ask import Live
from interp.apps.words import plain
from interp.model.vocabulary import visible

if TYPE_CHECKING:
    from interp.microscope.passed import Opened
    from interp.model.prompting import Bos


class Fed(NamedTuple):
    """A text as it is read there, beside the page's own."""

    more: int
    """How many tokens it has before the page's first one; less than 0 where it lacks some."""
    start: tuple[str, ...]
    """Those tokens, of the one that has them."""

    def place(self, look: Live, who: str) -> int:
        """The chosen token's position there, and a sentence that says so where it is another; less
        than 0 for one that is not there.

        Args:
            who: what reads it, "the SAE".
        """
        at = look.position + self.more
        if self.more:
            tokens = " ".join(map(visible, self.start))
            how = (
                f"with {tokens} before it, and the page's other views without"
                if self.more > 0
                else f"without {tokens} before it, and the page's other views with it"
            )
            where = f"the chosen token is at position {at} there"
            st.caption(
                plain(
                    f"{who.capitalize()} reads the text {how}: "
                    f"{where if at >= 0 else 'the chosen token is not there'}."
                )
            )
        return at


def fed_of(opened: Opened, text: str, bos: Bos) -> Fed:
    """How a text is fed with this before it."""
    own = opened.subject.prompting.ids(text)
    with opened.fed(bos) as subject:
        ids = subject.prompting.ids(text)
    more = len(ids) - len(own)
    longer = ids if more > 0 else own
    return Fed(more, tuple(opened.strings[token] for token in longer[: abs(more)]))
