"""Entry of the Streamlit app: `interp app` runs this file. The pages come from the registry."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from interp.analyses import Page, analyses
from interp.apps import home


def _shown(page: Page) -> Callable[[], None]:
    def show() -> None:
        # only now: some pages import torch, and most visits need none of it
        import_module(page.module).page()

    return show


def navigation() -> dict[str, list[StreamlitPage]]:
    """The pages of every analysis under its section."""
    sections: dict[str, list[StreamlitPage]] = {}
    for entry in analyses().values():
        for page in entry.pages:
            shown = st.Page(
                _shown(page),
                title=page.title,
                icon=f":material/{page.icon}:",
                url_path=page.address,
            )
            sections.setdefault(entry.section or entry.name, []).append(shown)
    return sections


def main() -> None:
    st.set_page_config(page_title="interp", page_icon=":material/biotech:", layout="wide")
    pages = navigation()
    atlas = pages["Neurons"][0]
    first = st.Page(lambda: home.page(atlas), title="Runs", icon=":material/home:", default=True)
    st.navigation({"": [first], **pages}).run()


main()
