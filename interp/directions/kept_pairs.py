"""Kept directions against each other: a row a pair. Their titles are anybody's words, so they stand
in cells and never name a column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from ..errors import UserError
from ..runs.store import Store
from .collections import KEPT, Collection, open_collection, told_apart
from .compare import between, why_not
from .directions import Directions

MOST = 40
"""Directions that are compared at once."""


class Compared(NamedTuple):
    """Directions of a collection against each other."""

    ids: list[str]
    names: list[str]
    """Their titles, with the id where two have one title."""
    cosine: Float[Tensor, "n n"]
    told: str
    """Which definition of a cosine, in a sentence."""
    rows: pd.DataFrame
    """A row a pair, the closest first: `name`, `other`, `cosine`, `source` and `other_source` (the
    texts that open them), and where a pair has no cosine, `blank`, the reason."""


def compare_kept(name: str, ids: Sequence[str] = (), store: Store | None = None) -> Compared:
    """Directions of a collection against each other.

    Args:
        ids: of which entries; by default of the first MOST directions.

    Raises:
        UserError: no such collection or entry, a damaged one, or fewer than two directions.
    """
    from .sources import open_directions

    store = store or Store()
    collection = open_collection(name, store)
    chosen = list(dict.fromkeys(ids)) or [each.id for each in collection.directions[:MOST]]
    if len(chosen) > MOST:
        raise UserError(f"{len(chosen)} directions are too many at once: name at most {MOST}")
    texts = {id: f"{KEPT}{collection.name}:{id}" for id in chosen}
    opened = {id: open_directions(text, None, store) for id, text in texts.items()}
    return compared(collection, opened)


def compared(collection: Collection, opened: Mapping[str, Directions]) -> Compared:
    """The same of directions that are open already, by the ids of their entries.

    Raises:
        UserError: fewer than two.
    """
    if len(opened) < 2:
        raise UserError("two directions are needed: name or keep another one")
    titles, every = told_apart(collection.entries), list(opened.values())
    names = [titles[id] for id in opened]
    cosine, told = between(every)
    texts = [f"{KEPT}{collection.name}:{id}" for id in opened]
    rows = pd.DataFrame(
        [
            (
                names[i],
                names[j],
                float(cosine[i, j]),
                texts[i],
                texts[j],
                why_not(every[i], every[j]),
            )
            for i, j in combinations(range(len(every)), 2)
        ],
        columns=["name", "other", "cosine", "source", "other_source", "blank"],
    )
    if not rows["blank"].any():
        rows = rows.drop(columns="blank")
    order = rows["cosine"].abs().sort_values(ascending=False, kind="stable").index
    return Compared(list(opened), names, cosine, told, rows.loc[order].reset_index(drop=True))


def words(collection: Collection, ids: Sequence[str]) -> list[str]:
    """The command that compares them."""
    usual = [each.id for each in collection.directions[:MOST]]
    return ["interp", "keep", "compare", collection.name, *([] if list(ids) == usual else ids)]
