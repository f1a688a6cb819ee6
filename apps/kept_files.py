"""A collection to take away, to put together with others, to take in and to remove."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from interp.apps.address import go
from interp.apps.common import consent, errors_in_place
from interp.apps.offering import code
from interp.apps.uploads import LARGEST
from interp.apps.words import plain
from interp.directions import keeping, merging, parcel
from interp.directions.collections import Collection, collection_names, open_collection
from interp.plain_text import printable
from interp.report.of_collection import report_of_collection
from interp.runs.command import store_words
from interp.runs.store import Store


def files(collection: Collection) -> None:
    """One .zip to send, merging, another name, removal, and what a colleague sent."""
    where = store_words(Store().root)
    for model in dict.fromkeys(entry.model for entry in collection.directions):
        consent(model)  # whose head the report reads
    st.subheader("Send it")
    st.download_button(
        "Export as .zip",
        parcel.packed(collection),
        f"{collection.name}.zip",
        "application/zip",
        icon=":material/download:",
        on_click="ignore",
    )
    st.download_button(
        "Export report (HTML)",
        lambda: report_of_collection(collection.name).encode(),
        f"{collection.name}.html",
        "text/html",
        icon=":material/description:",
        on_click="ignore",
    )
    code(["interp", "keep", "export", collection.name, f"{collection.name}.zip", *where])
    code(["interp", "keep", "report", collection.name, f"{collection.name}.html", *where])
    st.subheader("Put it together with others")
    with errors_in_place():
        _merge(collection, where)
    st.subheader("Another name")
    with st.form("rename", border=False):
        new = st.text_input("Name", collection.name, key=f"name {collection.name}")
        if st.form_submit_button("Rename"):
            go(name=keeping.rename(collection.name, new).name, view="Entries")
    take_in()
    st.subheader("Remove it")
    with errors_in_place():
        _remove(collection)


def _merge(collection: Collection, where: list[str]) -> None:
    others = [name for name in collection_names(Store()) if name != collection.name]
    if not others:
        st.caption("There is no other collection yet.")
        return
    chosen = st.multiselect("Others", others, key=f"merge {collection.name}", format_func=printable)
    if st.button("Put them into this one", disabled=not chosen, key="merge"):
        merged = merging.merge(collection.name, chosen)
        st.success(plain(f"{merged.name} has {len(merged.entries)} entries."))
    code(["interp", "keep", "merge", collection.name, *(chosen or others[:1]), *where])


def take_in() -> None:
    """A collection from a .zip file."""
    st.subheader("Take in what was sent")
    given = st.file_uploader("A collection's .zip", ["zip"], max_upload_size=LARGEST)
    if given is None:
        return
    name = st.text_input("Its name here", Path(given.name).stem, key=f"import {given.file_id}")
    if st.button("Take it in", key="take in"):
        with errors_in_place():
            taken = parcel.import_parcel(given, name)
            go(name=taken.name, view="Entries")


def _remove(collection: Collection) -> None:
    n = len(open_collection(collection.name).entries)
    sure = st.checkbox(
        f"Remove {plain(collection.name)} and its {n:,} entries for good",
        key=f"sure {collection.name}",
    )
    if st.button("Remove it", disabled=not sure, key=f"remove {collection.name}"):
        keeping.remove(collection.name)
        left = collection_names(Store())
        go(name=left[0] if left else "", view="Entries")
