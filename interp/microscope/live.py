"""One question to a model that is open: what says this token, after that one of this text."""

from __future__ import annotations

import pandas as pd

from ..lens.lens import Lens
from ..runs.store import Run
from .differences import differences
from .direct import Direct, ask
from .look import grid
from .names import Compared, Explained, Question
from .pair import place_of, side_by_side
from .passed import Opened
from .tables import head_table, neuron_table, part_table
from .tokens import token_table
from .words import heads_with_words, with_words


def direct_of(opened: Opened, question: Question) -> Direct:
    """Direct contributions to the logit that is asked for."""
    seen = opened.passed(question.text)
    at = seen.position(question.position)
    asked = ask(seen, at, question.target, question.against, question.alone)
    return Direct.one(seen, at, asked)


def explained(
    opened: Opened, question: Question, atlas: Run | None = None, keep: int = 20
) -> Explained:
    """The tables of one position, as the study keeps them; heads have their words too.

    Args:
        atlas: whose words neurons get; without one they are decoded.
    """
    direct = direct_of(opened, question)
    heads = heads_with_words(direct, head_table(direct, keep))
    neurons = with_words(opened, neuron_table(direct, keep), atlas)
    name, value = direct.asked[0].name(opened.strings), float(direct.values)
    return Explained(name, value, part_table(direct), heads, neurons)


def compared(opened: Opened, question: Question, other: str, keep: int = 20) -> Compared:
    """The logit that is asked for in this text, and the same one in another.

    Raises:
        UserError: the other text is empty, or too short.
    """
    here = direct_of(opened, question)
    there = opened.passed(other)
    at, ids = int(here.at[0]), here.passed.ids.tolist()
    place = place_of(ids, there.ids.tolist(), at)
    direct = Direct.one(there, place.position, here.asked[0])
    tokens = side_by_side(token_table(here.passed), token_table(there))
    values = (float(here.values), float(direct.values))
    name = here.asked[0].name(opened.strings)
    return Compared(name, *values, *place, differences(here, direct, keep), tokens)


def window(opened: Opened, question: Question, lens: Lens, k: int, most: int) -> pd.DataFrame:
    """The lens grid of the positions up to the one that is asked for, `most` at most."""
    seen = opened.passed(question.text)
    end = seen.position(question.position) + 1
    table: pd.DataFrame = grid(seen, lens, k, max(0, end - most), end)
    return table


def prefix(opened: Opened, question: Question) -> str:
    """The text up to a position, for those that explain a text's last token; "" where its tokens
    would be others."""
    seen, prompting = opened.passed(question.text), opened.subject.prompting
    end = seen.position(question.position) + 1
    if end == len(seen):
        return question.text
    ids = seen.ids[:end].tolist()
    own = ids[len(prompting.start) :]
    text = prompting.text(own) if own else ""
    return text if text and prompting.ids(text) == ids else ""
