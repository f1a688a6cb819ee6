"""Two texts side by side: which token is where in the other, and whose contribution differs most.

Two texts of as many tokens are aligned position by position. Of other lengths, their equal tokens
are (the longest common runs, as `difflib` finds them); a token that has no equal there is counted
from the end of both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

import pandas as pd
from torch import Tensor

from ..errors import UserError
from .direct import Direct
from .tables import Every, every_head, every_neuron, parts


class Place(NamedTuple):
    """A position in the other text, and why it is that one."""

    position: int
    how: str


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


def differences(here: Direct, there: Direct, keep: int = 20) -> pd.DataFrame:
    """Contributions to one logit in either text, the largest difference first: every part, and of
    heads and neurons the `keep` that differ most. `of` (part, head or neuron), `name`, `kind`,
    `layer`, `here`, `there`, `difference`; of neurons also the activations `active_here` and
    `active_there`.
    """
    nan = float("nan")
    rows = [
        {
            "of": "part",
            "name": a.kind if a.layer < 0 else f"{a.layer} {a.kind}",
            **{"kind": a.kind, "layer": a.layer},
            **{"here": float(a.contribution[0]), "there": float(b.contribution[0])},
            **{"active_here": nan, "active_there": nan},
        }
        for a, b in zip(parts(here), parts(there), strict=True)
    ]
    for of, every, form in (
        ("head", every_head, "{}.{}"),
        ("neuron", every_neuron, "{}.down.{}"),
    ):
        rows += _most(of, every, form, here, there, keep)
    table = pd.DataFrame(rows)
    table["difference"] = table["here"] - table["there"]
    order = table["difference"].abs().sort_values(ascending=False, kind="stable").index
    return table.loc[order].reset_index(drop=True)


def _most(
    of: str,
    every: Callable[[Direct], Every | None],
    form: str,
    here: Direct,
    there: Direct,
    keep: int,
) -> list[dict[str, object]]:
    """The heads or neurons that differ most."""
    own, other = every(here), every(there)
    if own is None or other is None:
        return []
    differs = (own.contributions[0] - other.contributions[0]).abs()
    made: list[dict[str, object]] = []
    for i in differs.topk(min(keep, len(differs))).indices.tolist():
        active = {
            f"active_{name}": _at(each.activations, i)
            for name, each in (("here", own), ("there", other))
        }
        made.append(
            {
                "of": of,
                "name": form.format(own.layers[i], own.numbers[i]),
                **{"kind": of, "layer": own.layers[i]},
                **{"here": float(own.contributions[0, i])},
                **{"there": float(other.contributions[0, i])},
                **active,
            }
        )
    return made


def _at(values: Tensor | None, i: int) -> float:
    return float("nan") if values is None else float(values[0, i])


def side_by_side(tokens: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """Two tables of `tokens.token_table` in one, row by row as `aligned` pairs their tokens:
    `position`, `token`, `probability`, `surprise` and the same with `other_`; missing ones are -1,
    "" and NaN."""
    made = []
    for pair in aligned(list(tokens["id"]), list(others["id"])):
        row: dict[str, object] = {}
        for at, table, before in zip(pair, (tokens, others), ("", "other_"), strict=True):
            own = table.iloc[at] if at >= 0 else {}
            row[f"{before}position"] = at
            row[f"{before}token"] = own["token"] if at >= 0 else ""
            for name in ("probability", "surprise"):
                row[f"{before}{name}"] = float(own[name]) if at >= 0 else float("nan")
        row["equal"] = min(pair) >= 0 and row["token"] == row["other_token"]
        made.append(row)
    return pd.DataFrame(made)
