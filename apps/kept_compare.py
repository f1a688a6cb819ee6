"""A collection's directions against each other: cosines, and what each spells."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from interp.apps.address import bound
from interp.apps.columns import shown_table
from interp.apps.common import consent, errors_in_place
from interp.apps.offering import offer
from interp.apps.sets import OpenSet, decoded, opened_set, spelled
from interp.apps.shown import charts
from interp.apps.words import called, first_of, plain
from interp.directions import figures
from interp.directions.collections import Collection, told_apart
from interp.directions.compare import meaning
from interp.directions.kept_pairs import MOST, Compared, words
from interp.directions.kept_pairs import compared as compare
from interp.errors import UserError
from interp.model.weights import open_weights
from interp.runs.command import store_words
from interp.runs.store import Store


def compared(collection: Collection) -> None:
    """The cosines of its directions, and their tokens side by side."""
    entries = collection.directions
    if len(entries) < 2:
        st.info("Keep two directions, and they are compared here.")
        return
    titles = told_apart(collection.entries)
    titles = {entry.id: titles[entry.id] for entry in entries}
    ids = st.multiselect(
        "Directions",
        list(titles),
        key=bound("directions", (), read=lambda text: [i for i in text.split(",") if i in titles]),
        format_func=called(titles),
        placeholder="all of them" if len(titles) <= MOST else f"the first {MOST}",
    )
    picked = [id for id in ids if id in titles]
    chosen = (picked or list(titles))[:MOST]
    if cut := first_of(len(chosen), len(picked or titles)):
        st.info(plain(f"{cut} Choose others in the list."))
    every = _opened(collection, chosen)
    for model in dict.fromkeys(each.model for each in every.values()):
        consent(model)
    made = compare(collection, {id: each.directions for id, each in every.items()})
    charts(
        "cosines",
        figures.cosine_map(made.cosine, made.names, made.names),
        shows=f"Cosines. {made.told} A blank has none. Directions that were found in different "
        "ways and still agree are the surprise.",
        found=_found(made, every),
    )
    for line in _blanks(made.rows):
        st.caption(plain(line))
    with errors_in_place():
        _spelled(every, made.names)
    where = store_words(Store().root)
    store = f", store=Store(Path({where[1]!r}))" if where else ""
    imports = "from pathlib import Path\nfrom interp import Store\n" if where else ""
    call = (
        f"{imports}from interp.directions.kept_pairs import compare_kept\n"
        f"compare_kept({collection.name!r}, {made.ids!r}{store}).rows"
    )
    command = [*words(collection, made.ids), *where]
    offer(made.rows, f"{collection.name} cosines", command, call, of="directions")


def _opened(collection: Collection, ids: list[str]) -> dict[str, OpenSet]:
    """Those that can be opened, by id; what is wrong with the others is said."""
    every = {}
    for id in ids:
        with errors_in_place():
            every[id] = opened_set(f"kept:{collection.name}:{id}")
    if len(every) < 2:
        raise UserError("choose two directions that can be opened")
    return every


def _found(made: Compared, every: dict[str, OpenSet]) -> str:
    """The pair that is most alike, in a sentence."""
    best = made.rows.iloc[0]
    if not abs(best["cosine"]) > 0:  # NaN, where no pair has one
        return ""
    ours, theirs = (every[best[side].rpartition(":")[2]] for side in ("source", "other_source"))
    said = meaning(ours.directions, theirs.directions)
    return (
        f"The largest in size is that of {best['name']} and {best['other']}, "
        f"{best['cosine']:.3f}. {said}"
    )


def _blanks(rows: pd.DataFrame) -> list[str]:
    """Why some pairs have no cosine, a line a reason."""
    if "blank" not in rows:
        return []
    first = rows[rows["blank"] != ""].drop_duplicates("blank").head(3)
    said = zip(first["name"], first["other"], first["blank"], strict=True)
    return [f"{name} and {other}: {reason}" for name, other, reason in said]


def _spelled(every: dict[str, OpenSet], names: list[str]) -> None:
    """What each spells, in one table."""
    rows = []
    for each, name in zip(every.values(), names, strict=True):
        with errors_in_place():
            if reason := each.directions.provenance.not_of(open_weights(each.model)):
                st.warning(plain(f"{name} is {reason}."))
            table = decoded(each, each.model, 10, "raw")
            rows.append(spelled(table, figures.cut(name), str(each.directions.site)))
    shown_table(pd.DataFrame(rows), "spelled", "directions")
