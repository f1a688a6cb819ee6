"""What can be done next with a direction, wherever one is shown: one small menu."""

from __future__ import annotations

import streamlit as st

from interp.apps.common import link, plain

VIEWS = {
    "tokens": "Decode",
    "examples": "Top examples",
    "text": "Score on a text",
    "nearest": "Nearest neurons and latents",
    "split": "Split by an SAE",
    "compare": "Compare",
    "keep": "Keep",
}
"""The views of a direction's page, by the URL's `view`."""


def carry_on(source: str, model: str, key: str) -> None:
    """The menu of a direction.

    Args:
        source: the text that opens it (`directions.open_directions`), `29.down.808`.
        key: tells this menu from others on the page.
    """
    with st.popover(plain(source), key=f"carry {key}", icon=":material/explore:"):
        for view, label in VIEWS.items():
            link("direction", label, direction=source, model=model, view=view)
        link("steer", "Steer", direction=source, model=model)
        link("steer", "Ablate", direction=source, model=model, act="ablate")
