"""Entry of the Streamlit app: `interp app` runs this file."""

from __future__ import annotations

import streamlit as st

from interp.apps import agree, atlas, clamp, home


def main() -> None:
    st.set_page_config(page_title="interp", page_icon=":material/biotech:", layout="wide")
    atlas_page = st.Page(atlas.page, title="Neuron atlas", icon=":material/map:", url_path="atlas")
    home_page = st.Page(
        lambda: home.page(atlas_page), title="Runs", icon=":material/home:", default=True
    )
    clamp_page = st.Page(clamp.page, title="Clamp", icon=":material/tune:", url_path="clamp")
    agree_page = st.Page(
        agree.page, title="Agreement", icon=":material/compare:", url_path="agreement"
    )
    st.navigation([home_page, atlas_page, clamp_page, agree_page]).run()


main()
