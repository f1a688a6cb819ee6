"""A collection's directions against each other: cosines, and what each spells."""

from __future__ import annotations

import pandas as pd
import streamlit as st
from torch import Tensor

from interp.apps.address import bound
from interp.apps.columns import shown_table
from interp.apps.common import consent, errors_in_place
from interp.apps.offering import offer
from interp.apps.sets import OpenSet, decoded, opened_set, spelled
from interp.apps.shown import charts
from interp.apps.words import called, first_of, plain
from interp.directions import figures
from interp.directions.collections import Collection, new_id
from interp.directions.compare import between, meaning, why_not
from interp.errors import UserError
from interp.model.weights import open_weights
from interp.runs.command import store_words
from interp.runs.store import Store

MOST = 40
"""Directions of a map."""


def compared(collection: Collection) -> None:
    """The cosines of its directions, and their tokens side by side."""
    entries = collection.directions
    if len(entries) < 2:
        st.info("Keep two directions, and they are compared here.")
        return
    titles = {entry.id: entry.title for entry in entries}
    ids = st.multiselect(
        "Directions",
        list(titles),
        key=bound("directions", (), read=lambda text: [i for i in text.split(",") if i in titles]),
        format_func=called({id: _named(id, title) for id, title in titles.items()}),
        placeholder="all of them" if len(titles) <= MOST else f"the first {MOST}",
    )
    picked = [id for id in ids if id in titles]
    chosen = picked or list(titles)[:MOST]
    if cut := first_of(len(chosen), len(picked or titles)):
        st.info(plain(f"{cut} Choose others in the list: the map takes whatever is chosen."))
    every = _opened(collection, chosen)
    for model in dict.fromkeys(each.model for each in every):
        consent(model)
    names = [titles[each.source.rpartition(":")[2]] for each in every]
    directions = [each.directions for each in every]
    cosine, told = between(directions)
    charts(
        "cosines",
        figures.cosine_map(cosine, names, names),
        shows=f"Cosines. {told} A blank has none. Directions that were found in different ways and "
        "still agree are the surprise.",
        found=_found(cosine, every, names),
    )
    for line in _blanks(every, names):
        st.caption(plain(line))
    with errors_in_place():
        _spelled(every, names)
    where = store_words(Store().root)
    rows = pd.DataFrame(cosine.numpy(), names, names).reset_index(names="direction")
    call = (
        "from interp import open_directions\n"
        + "from interp.directions.compare import between\n"
        + f"sources = {[each.source for each in every]!r}\n"
        + "between([open_directions(source) for source in sources]).cosine"
    )
    command = ["interp", "directions", "compare", every[0].source, every[1].source, *where]
    offer(rows, f"{collection.name} cosines", command, call)


def _named(id: str, title: str) -> str:
    """An entry in a list; two may have one title."""
    return title if new_id(title, ()) == id else f"{title} ({id})"


def _opened(collection: Collection, ids: list[str]) -> list[OpenSet]:
    """Those that can be opened; what is wrong with the others is said."""
    every = []
    for id in ids:
        with errors_in_place():
            every.append(opened_set(f"kept:{collection.name}:{id}"))
    if len(every) < 2:
        raise UserError("choose two directions that can be opened")
    return every


def _found(cosine: Tensor, every: list[OpenSet], names: list[str]) -> str:
    """The pair that is most alike, in a sentence."""
    cosine = cosine.clone().fill_diagonal_(0)
    best = cosine.nan_to_num(0).abs().argmax()
    i, j = divmod(int(best), len(every))
    if i == j:
        return ""
    value = float(cosine[i, j])
    said = meaning(every[i].directions, every[j].directions)
    return f"The largest in size is that of {names[i]} and {names[j]}, {value:.3f}. {said}"


def _blanks(every: list[OpenSet], names: list[str]) -> list[str]:
    """Why some pairs have no cosine, a line a reason."""
    reasons: dict[str, str] = {}
    for i, ours in enumerate(every):
        for j in range(i):
            if reason := why_not(ours.directions, every[j].directions):
                reasons.setdefault(reason, f"{names[i]} and {names[j]}: {reason}")
    return list(reasons.values())[:3]


def _spelled(every: list[OpenSet], names: list[str]) -> None:
    """What each spells, in one table."""
    rows = []
    for each, name in zip(every, names, strict=True):
        with errors_in_place():
            if reason := each.directions.provenance.not_of(open_weights(each.model)):
                st.warning(plain(f"{name} is {reason}."))
            table = decoded(each, each.model, 10, "raw")
            rows.append(spelled(table, figures.cut(name), str(each.directions.site)))
    shown_table(pd.DataFrame(rows), "spelled", "directions")
