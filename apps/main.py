"""Entry of the Streamlit app: `interp app` runs this file."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from interp.apps import home

# section -> (module of interp.apps with a `page()`, title, icon); the module is its address
PAGES = {
    "Neurons": [
        ("atlas", "Neuron atlas", "map"),
        ("clamp", "Clamp", "tune"),
        ("tars", "Remove a concept", "delete_sweep"),
        ("agree", "Agreement", "compare"),
    ],
    "Directions": [
        ("directions", "Directions", "explore"),
        ("steer", "Steer", "moving"),
        ("obsprop", "Observables", "route"),
        ("knob", "Context knob", "tune"),
    ],
    "SAEs": [
        ("darkmatter", "Dark matter", "blur_on"),
    ],
    "Linear interpreters": [
        ("linearscope", "LinearScope", "grid_view"),
    ],
    "OthelloGPT": [
        ("othello", "Board", "grid_on"),
        ("othello_layers", "Probes and SAEs", "stacked_line_chart"),
    ],
    "Workbench": [
        ("bench", "Kernels", "speed"),
    ],
}


def _shown(module: str) -> Callable[[], None]:
    def page() -> None:
        # only now: some pages import torch, and most visits need none of it
        import_module(f"interp.apps.{module}").page()

    return page


def main() -> None:
    st.set_page_config(page_title="interp", page_icon=":material/biotech:", layout="wide")
    pages: dict[str, list[StreamlitPage]] = {
        section: [
            st.Page(_shown(module), title=title, icon=f":material/{icon}:", url_path=module)
            for module, title, icon in entries
        ]
        for section, entries in PAGES.items()
    }
    atlas_page = pages["Neurons"][0]
    home_page = st.Page(
        lambda: home.page(atlas_page), title="Runs", icon=":material/home:", default=True
    )
    st.navigation({"": [home_page], **pages}).run()


main()
