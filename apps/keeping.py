"""The forms that keep a direction, a prompt or a view in a collection. No torch until one is
kept."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlencode

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from interp.apps.common import errors_in_place, link
from interp.apps.offering import offer
from interp.apps.words import plain
from interp.directions.collections import collection_names
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

        (entry,) = keep(wish.name, source, model, wish.note, wish.title)
        _said(wish.name, entry.id)
    _offered(source, model, wish.name, wish.note)


def keep_prompt(text: str, model: str, key: str) -> None:
    """A small menu that keeps a prompt.

    Args:
        key: tells this menu from others on the page.
    """
    with _menu("Keep this prompt", key), errors_in_place():
        wish = _asked(f"prompt {key}", text[:60])
        if wish.pressed:
            from interp.directions import keeping

            entry = keeping.keep_prompt(wish.name, text, model, wish.note, wish.title)
            _said(wish.name, entry.id)


def keep_view(address: str, title: str) -> None:
    """A small menu in the sidebar that keeps what a page shows now, by the URL.

    Args:
        address: of the page.
    """
    with st.sidebar, _menu("Keep this view", "view"), errors_in_place():
        wish = _asked("view", title)
        if wish.pressed:
            from interp.directions import keeping

            params = urlencode(st.query_params.to_dict())
            entry = keeping.keep_view(wish.name, f"/{address}?{params}", wish.title, wish.note)
            _said(wish.name, entry.id)


def _menu(label: str, key: str) -> DeltaGenerator:
    return st.popover(plain(label), icon=":material/bookmark_add:", key=f"keep menu {key}")


def _asked(key: str, title: str) -> Wish:
    """The form; its title follows what is kept."""
    names = collection_names(Store())
    with st.form(f"keep {key}", border=False):
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


def _said(name: str, id: str) -> None:
    st.success(plain(f"Kept as {id} in {name}."))
    link("kept", f"Open {name}", name=name)


def _offered(source: str, model: str, name: str, note: str) -> None:
    """The same as a command and a notebook call."""
    import pandas as pd

    where = store_words(Store().root)
    noted = ["--note", note] if note else []
    command = ["interp", "keep", "add", name, source, "--model", model, *noted, *where]
    store = f", store=Store(Path({where[1]!r}))" if where else ""
    imports = "from pathlib import Path\nfrom interp import Store\n" if where else ""
    call = (
        f"{imports}from interp.directions.keeping import keep\n"
        f"keep({name!r}, {source!r}, {model!r}, {note!r}{store})"
    )
    rows = pd.DataFrame({"source": [source], "model": [model], "note": [note]})
    offer(rows, "kept", command, call)
