"""The page of collections: what is kept, with notes; compared; merged, sent and taken."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import streamlit as st

from interp.apps.address import bound
from interp.apps.carry import carry_on
from interp.apps.chips import chips
from interp.apps.common import errors_in_place, in_tabs, link
from interp.apps.offering import code
from interp.apps.words import plain
from interp.directions import keeping
from interp.directions.collections import Collection, Entry, collection_names, open_collection
from interp.plain_text import printable
from interp.runs.command import store_words
from interp.runs.store import Store

ONCE = 25
"""Entries shown at once."""


@errors_in_place()
def page() -> None:
    st.title("Collections")
    st.caption(
        "Named sets of directions, prompts and views, with your notes. They lie in the store, and "
        "each direction scores as it did where it was found."
    )
    names = collection_names(Store())
    if not names:
        _begin()
        return
    name = st.selectbox(
        "Collection", names, key=bound("name", names[0], names, always=True), format_func=printable
    )
    collection = open_collection(str(name))
    _note(collection)
    in_tabs({"Entries": _entries, "Compare": _compared, "Files": _files}, collection)


# these import torch, which to look at what is kept needs none of
def _compared(collection: Collection) -> None:
    from interp.apps.kept_compare import compared

    compared(collection)


def _files(collection: Collection) -> None:
    from interp.apps.kept_files import files

    files(collection)


def _begin() -> None:
    st.info("Nothing is kept yet. Keep a direction on its page, or by a command:")
    code(["interp", "keep", "add", "animals", "29.down.808", *store_words(Store().root)])
    link("direction", "Open a direction", direction="29.down.808", view="keep")
    from interp.apps.kept_files import take_in

    take_in()


def _note(collection: Collection) -> None:
    """The collection's own note, written in place."""
    # another note is another widget: a default never changes under the same key
    key = f"note {collection.name} {hash(collection.note)}"
    st.text_area(
        "About this collection",
        collection.note,
        key=key,
        height=70,
        on_change=_noted,
        args=(key, collection.name, ""),
    )


def _noted(key: str, collection: str, entry: str) -> None:
    """Keep a note as it is left, before anything else is done on the page."""
    with errors_in_place():
        keeping.annotate(collection, st.session_state[key], entry)


def _entries(collection: Collection) -> None:
    """Every entry with what it is, its note, and what can be done with it."""
    counts = dict.fromkeys(("direction", "prompt", "view"), 0)
    for entry in collection.entries:
        counts[entry.kind] += 1
    st.caption(
        plain(", ".join(f"{n} {kind}{'s' if n != 1 else ''}" for kind, n in counts.items() if n))
    )
    every = collection.entries
    first = 0
    if len(every) > ONCE:
        last = -(-len(every) // ONCE)
        number = st.number_input("Page", 1, last, key=bound("page", 1, range(1, last + 1)))
        first = (int(number) - 1) * ONCE
    for entry in every[first : first + ONCE]:
        with st.container(border=True), errors_in_place():
            _entry(collection, entry)


def _entry(collection: Collection, entry: Entry) -> None:
    place = f"{collection.name} {entry.id}"
    st.subheader(plain(entry.title), divider=False)
    st.markdown(chips(("site", entry.site), ("model", entry.model), ("set", entry.kind)))
    left, right = st.columns([2, 3])
    with left:
        if entry.kind == "direction":
            carry_on(f"kept:{collection.name}:{entry.id}", entry.model, place)
        elif entry.kind == "prompt":
            st.text(entry.text[:2000])
            params = {"model": entry.model} if entry.model else {}
            link("prompt", "Open it", text=entry.text, **params)
        else:
            _view(entry)
        if st.button("Take it out", key=f"remove {place}", type="tertiary"):
            keeping.remove(collection.name, entry.id)
            st.rerun()
    with right:
        key = f"note {place} {hash(entry.note)}"
        st.text_area(
            "Note",
            entry.note,
            key=key,
            height=80,
            help=plain(_about(entry)),
            on_change=_noted,
            args=(key, collection.name, entry.id),
        )


def _view(entry: Entry) -> None:
    """A link to a kept view."""
    parts = urlsplit(entry.address)
    params = dict(parse_qsl(parts.query, keep_blank_values=True))
    link(parts.path.strip("/") or "home", entry.address[:80], **params)


def _about(entry: Entry) -> str:
    """Where an entry is from."""
    parts = [f"kept {entry.added[:16].replace('T', ' ')}" if entry.added else "", entry.source]
    return ", ".join(part for part in parts if part) or "of unknown origin"
