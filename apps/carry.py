"""What can be done next with a direction, wherever one is shown: one small menu.

It imports no torch and opens nothing: it is links to the page of the direction, by the text that
opens it.
"""

from __future__ import annotations

import streamlit as st

from interp.apps.chips import shown
from interp.apps.common import link
from interp.apps.words import plain
from interp.directions.sets import portable
from interp.runs.store import Store

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


def carry_on(source: str, model: str, key: str, label: str = "") -> None:
    """The menu of a direction.

    Args:
        source: the text that opens it (`directions.open_directions`), `29.down.808`.
        model: whose neuron it is, and what runs.
        key: tells this menu from others on the page.
        label: what the button says; by default the source.
    """
    source = portable(source, Store())
    button = f"carry {key}"
    with st.popover(plain(shown("vector", label or source)), key=button, icon=":material/explore:"):
        links(source, model)


def links(source: str, model: str) -> None:
    """What the menu holds, without its button."""
    for view, label in VIEWS.items():
        link("direction", label, direction=source, model=model, view=view)
    link("steer", "Steer", direction=source, model=model)
    link("steer", "Ablate", direction=source, model=model, act="ablate")
