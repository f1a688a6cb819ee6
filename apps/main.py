"""Entry of the Streamlit app: `interp app` runs this file. The pages come from the registry."""

from __future__ import annotations

from functools import partial
from importlib import import_module

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from interp.analyses import Page, analyses
from interp.apps import home
from interp.apps.common import errors_in_place


def _show(page: Page) -> None:
    # only now: some pages import torch, and most visits need none of it
    with errors_in_place():
        import_module(page.module).page()


def navigation() -> dict[str, list[StreamlitPage]]:
    """The pages of every analysis under its section."""
    sections: dict[str, list[StreamlitPage]] = {}
    for entry in analyses().values():
        for page in entry.pages:
            icon = f":material/{page.icon}:"
            shown = st.Page(
                partial(_show, page), title=page.title, icon=icon, url_path=page.address
            )
            sections.setdefault(entry.section or entry.name, []).append(shown)
    return sections


def main() -> None:
    st.set_page_config(page_title="interp", page_icon="🔬", layout="wide")
    pages = navigation()
    atlas = pages["Neurons"][0]
    first = st.Page(lambda: home.page(atlas), title="Runs", icon=":material/home:", default=True)
    st.navigation({"": [first], **pages}).run()


main()
