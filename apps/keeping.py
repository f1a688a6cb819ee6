"""The form that keeps a direction, a prompt or a view in a collection."""

from __future__ import annotations

import streamlit as st

from interp.apps.common import link, offer, plain
from interp.directions.collections import collection_names
from interp.plain_text import printable
from interp.runs.command import store_words
from interp.runs.store import Store

USUAL = "my collection"


def keep_form(source: str, model: str, title: str) -> None:
    """Keep a direction: which collection, its title, a note.

    Args:
        source: the text that opens it.
        model: whose it is.
        title: by default its name.
    """
    store = Store()
    names = collection_names(store)
    with st.form(f"keep {source}", border=True):
        name = st.selectbox(
            "Collection",
            names or [USUAL],
            key=f"keep in {source}",
            accept_new_options=True,
            format_func=printable,
            help="One of the store's, or type a new name.",
        )
        given = st.text_input("Title", title, key=f"keep title {source}")
        note = st.text_area("Note", key=f"keep note {source}", height=90)
        pressed = st.form_submit_button("Keep it", icon=":material/bookmark_add:")
    if pressed:
        from interp.directions.keeping import keep

        (entry,) = keep(str(name or ""), source, model, note, given.strip(), store)
        st.success(plain(f"Kept as {entry.id} in {name}."))
        link("kept", f"Open {name}", name=str(name))
    _offered(source, model, str(name or USUAL), note)


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
