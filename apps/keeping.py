"""The forms that keep a direction, a prompt or a view in a collection. No torch until one is
kept."""

from __future__ import annotations

from typing import NamedTuple

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from interp.apps.address import query
from interp.apps.common import errors_in_place, link
from interp.apps.offering import offer
from interp.apps.words import plain
from interp.directions.collections import collection_names, open_collection
from interp.directions.sets import portable
from interp.plain_text import printable
from interp.runs.command import store_words
from interp.runs.store import Store

USUAL = "my collection"


class Wish(NamedTuple):
    """What a form says."""

    pressed: bool
    name: str
    """Of the collection."""
    title: str
    note: str


def keep_form(source: str, model: str, title: str) -> None:
    """Keep a direction: in which collection, its title, a note.

    Args:
        source: the text that opens it.
        model: whose it is.
        title: by default its name.
    """
    wish = _asked(source, title)
    if wish.pressed:
        from interp.directions.keeping import keep

        before = _there("source", portable(source, Store()), wish.name)
        (entry,) = keep(wish.name, source, model, wish.note, wish.title)
        _said(wish.name, entry.id, before)
    _offered(source, model, wish)


def keep_prompt(text: str, model: str, key: str) -> None:
    """A small menu that keeps a prompt.

    Args:
        key: tells this menu from others on the page.
    """
    with _menu("Keep this prompt", key), errors_in_place():
        wish = _asked(f"prompt {key}", text[:60])
        if wish.pressed:
            from interp.directions import keeping

            before = _there("text", text, wish.name)
            entry = keeping.keep_prompt(wish.name, text, model, wish.note, wish.title)
            _said(wish.name, entry.id, before)


def keep_view(address: str, title: str) -> None:
    """A small menu in the sidebar that keeps what a page shows now, by the URL.

    Args:
        address: of the page.
    """
    with st.sidebar, _menu("Keep this view", "view"), errors_in_place():
        wish = _asked("view", title)
        if wish.pressed:
            from interp.directions import keeping

            shown = f"/{address}?{query()}"
            before = _there("address", shown, wish.name)
            entry = keeping.keep_view(wish.name, shown, wish.title, wish.note)
            _said(wish.name, entry.id, before)


def _menu(label: str, key: str) -> DeltaGenerator:
    return st.popover(plain(label), icon=":material/bookmark_add:", key=f"keep menu {key}")


def _asked(key: str, title: str) -> Wish:
    """The form; its title follows what is kept."""
    names = collection_names(Store())
    # Enter in a field would keep at once, before the note is written
    with st.form(f"keep {key}", enter_to_submit=False, border=False):
        name = st.selectbox(
            "Collection",
            names or [USUAL],
            key=f"keep in {key}",
            accept_new_options=True,
            format_func=printable,
            help="One of the store's, or type a new name.",
        )
        given = st.text_input("Title", title, key=f"keep title {key} {title}")
        note = st.text_area("Note", key=f"keep note {key}", height=90)
        pressed = st.form_submit_button("Keep it")
    return Wish(pressed, str(name or ""), given.strip(), note)


def _there(kind: str, value: str, name: str) -> list[str]:
    """The ids of what a collection has of the same source, text or address."""
    if name not in collection_names(Store()):
        return []
    return [each.id for each in open_collection(name).entries if getattr(each, kind) == value]


def _said(name: str, id: str, before: list[str]) -> None:
    """What was kept, and that the same was there already."""
    st.success(plain(f"Kept as {id} in {name}."))
    if before:
        others = ", ".join(before[:3])
        st.warning(plain(f"{name} had the same already, as {others}: now it has it once more."))
    link("kept", f"Open {name}", name=name)


def _offered(source: str, model: str, wish: Wish) -> None:
    """The same as a command and a notebook call."""
    import pandas as pd

    where = store_words(Store().root)
    _, name, title, note = wish
    noted = [*(["--title", title] if title else []), *(["--note", note] if note else [])]
    command = ["interp", "keep", "add", name, source, "--model", model, *noted, *where]
    store = f", store=Store(Path({where[1]!r}))" if where else ""
    imports = "from pathlib import Path\nfrom interp import Store\n" if where else ""
    call = (
        f"{imports}from interp.directions.keeping import keep\n"
        f"keep({name!r}, {source!r}, {model!r}, {note!r}, {title!r}{store})"
    )
    rows = pd.DataFrame({"source": [source], "model": [model], "title": [title], "note": [note]})
    offer(rows, "kept", command, call)
