"""Figures on a page, with the sentence above each and the one below."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import streamlit as st
from plotly.graph_objects import Figure
from streamlit.delta_generator import DeltaGenerator

from interp.apps.take import figure_shown
from interp.apps.words import plain
from interp.plots import FORMATS, drawn, many_panels, on_dark, sentences, undrawable


def charts(key: str, *figures: Figure, shows: str = "", found: str = "") -> list[DeltaGenerator]:
    """Figures beside each other, each with its own sentences (`plots.said`); returns their columns.

    Args:
        shows: a sentence above all: what is to be seen, and what would be a surprise.
        found: a sentence below all: what was found.
    """
    if shows:
        st.caption(plain(shows))
    columns = st.columns(len(figures))
    for number, (column, figure) in enumerate(zip(columns, figures, strict=True)):
        name, (above, below) = f"{key} {number}", sentences(figure)
        last = found if number == len(figures) - 1 else ""
        figure_shown(figure, "" if number else shows, last)
        with column:
            if above:
                st.caption(plain(above))
            with st.container(key=f"wide {name}") if many_panels(figure) else nullcontext():
                st.plotly_chart(_themed(figure), key=name)
            if below:
                st.markdown(plain(below))
            with st.popover("Save the figure", type="tertiary", key=f"{name} save"):
                _save(figure, name)
    if found:
        st.markdown(plain(found))
    return columns


def clickable(key: str, figure: Figure, pressed: Callable[[Any], None]) -> None:
    """A figure with its sentences, whose points answer a click: `pressed` gets the point's
    `customdata`."""

    def selected() -> None:
        points = st.session_state[key]["selection"]["points"]
        if points:
            chosen = points[0]["customdata"]
            pressed(chosen[0] if isinstance(chosen, list) else chosen)

    above, below = sentences(figure)
    figure_shown(figure)
    if above:
        st.caption(plain(above))
    st.plotly_chart(_themed(figure), key=key, on_select=selected, selection_mode="points")
    if below:
        st.markdown(plain(below))
    with st.popover("Save the figure", type="tertiary", key=f"{key} save"):
        _save(figure, key)


def _themed(figure: Figure) -> Figure:
    """The figure with colour scales for the page's theme; streamlit sees to its axes and text."""
    return on_dark(figure) if st.context.theme.type == "dark" else figure


def _save(figure: Figure, name: str) -> None:
    """A button for each format; the figure is drawn when one is pressed."""
    if reason := undrawable():
        st.caption(plain(reason))
        return
    for column, kind in zip(st.columns(len(FORMATS)), FORMATS, strict=True):
        column.download_button(
            plain(kind.upper()),
            partial(drawn, figure, kind),
            f"{name.replace(' ', '-')}.{kind}",
            key=f"{name} {kind}",
            on_click="ignore",
        )
