"""Entry of the Streamlit app: `interp app` runs this file."""

from __future__ import annotations

import streamlit as st

from interp.apps import atlas, home


def main() -> None:
    st.set_page_config(page_title="interp", page_icon=":material/biotech:", layout="wide")
    atlas_page = st.Page(atlas.page, title="Neuron atlas", icon=":material/map:", url_path="atlas")
    home_page = st.Page(
        lambda: home.page(atlas_page), title="Runs", icon=":material/home:", default=True
    )
    st.navigation([home_page, atlas_page]).run()


main()
