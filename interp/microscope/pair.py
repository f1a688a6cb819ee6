"""Two texts side by side: which token of one is where in the other.

Two texts of as many tokens are aligned position by position. Of other lengths, their equal tokens
are (the longest common runs, as `difflib` finds them); a token that has no equal there is counted
from the end of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

import pandas as pd

from ..errors import UserError


class Place(NamedTuple):
    """A position in the other text, and why it is that one."""

    position: int
    how: str


def position_of(asked: int, length: int) -> int:
    """A position from 0 in a text of so many tokens; a negative one counts from the end.

    Raises:
        UserError: the text has no such token.
    """
    if not -length <= asked < length:
        raise UserError(f"there is no position {asked}: the text has 0 to {length - 1}")
    return asked % length


def place_of(ids: Sequence[int], others: Sequence[int], position: int) -> Place:
    """Where a position of one text is in another.

    Raises:
        UserError: the other text is too short to have it.
    """
    if len(ids) == len(others):
        return Place(position, "both texts have as many tokens, so positions are the same")
    found = SequenceMatcher(None, list(ids), list(others), autojunk=False).get_matching_blocks()
    for start, there, size in found:
        if start <= position < start + size:
            return Place(there + position - start, "the texts are aligned by their equal tokens")
    counted = position - len(ids) + len(others)
    if counted < 0:
        raise UserError(
            f"position {position} has no counterpart: it stands {len(ids) - position} tokens "
            f"before the end, and the other text has {len(others)}"
        )
    return Place(counted, "this token has no equal in the other text: counted from the end")


def aligned(ids: Sequence[int], others: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of positions side by side, -1 where one text has nothing."""
    if len(ids) == len(others):
        return [(n, n) for n in range(len(ids))]
    made: list[tuple[int, int]] = []
    matcher = SequenceMatcher(None, list(ids), list(others), autojunk=False)
    for _, start, end, there, until in matcher.get_opcodes():
        for n in range(max(end - start, until - there)):
            made.append(
                (start + n if start + n < end else -1, there + n if there + n < until else -1)
            )
    return made


def side_by_side(tokens: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """Two tables of `tokens.token_table` in one, row by row as `aligned` pairs their tokens:
    `position`, `token`, `probability`, `surprise` and the same with `other_`; missing ones are -1,
    "" and NaN."""
    made = []
    for pair in aligned(list(tokens["id"]), list(others["id"])):
        row: dict[str, object] = {}
        for at, table, before in zip(pair, (tokens, others), ("", "other_"), strict=True):
            row[f"{before}position"] = at
            row[f"{before}token"] = str(table["token"].iloc[at]) if at >= 0 else ""
            for name in ("probability", "surprise"):
                row[f"{before}{name}"] = float(table[name].iloc[at]) if at >= 0 else float("nan")
        row["equal"] = min(pair) >= 0 and row["token"] == row["other_token"]
        made.append(row)
    return pd.DataFrame(made)
