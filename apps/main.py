"""Entry of the Streamlit app: `interp app` runs this file. The pages come from the registry."""

from __future__ import annotations

from functools import partial
from importlib import import_module

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from interp.analyses import VERBS, Page, analyses
from interp.apps.address import followed
from interp.apps.common import PAGES, errors_in_place
from interp.apps.jobs import status_line
from interp.apps.keeping import keep_view
from interp.apps.look import STYLE
from interp.apps.picking import choose_model, model_shown
from interp.apps.unread import about

HOME = Page("interp.apps.home", "Start", "home")


def _show(page: Page) -> None:
    # only now: some pages import torch, and most visits need none of it
    with errors_in_place(), followed(page.address) as arrived:
        choose_model(arrived)
        status_line()
        said = st.container()
        import_module(page.module).page()
        with said:
            about(page, arrived)
        model_shown()
        keep_view(page.address, page.title)


def navigation() -> dict[str, list[StreamlitPage]]:
    """The pages of every analysis under its section, the start page first."""
    first = st.Page(partial(_show, HOME), title=HOME.title, icon=":material/home:", default=True)
    sections: dict[str, list[StreamlitPage]] = {"Workbench": [first]}
    st.session_state[PAGES] = by_address = {HOME.address: first}
    for entry in (VERBS | analyses()).values():
        for page in entry.pages:
            icon = f":material/{page.icon}:"
            shown = st.Page(
                partial(_show, page), title=page.title, icon=icon, url_path=page.address
            )
            sections.setdefault(entry.section or entry.name, []).append(shown)
            by_address[page.address] = shown
    return sections


def main() -> None:
    st.set_page_config(page_title="interp", page_icon="🔬", layout="wide")
    st.html(f"<style>{STYLE}</style>")
    st.navigation(navigation(), expanded=True).run()


main()
