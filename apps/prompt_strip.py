"""A text's tokens as buttons: each can be clicked or reached with the keyboard, and its colour says
a number."""

from __future__ import annotations

import re

import pandas as pd
import streamlit as st

from interp.apps.words import plain
from interp.model.vocabulary import visible

COLOURS = ("surprise", "entropy", "none")
SAY = {
    "surprise": "Blue: how surprising a token is, up to {most:.1f} nats.",
    "entropy": "Blue: how unsure the model is after a token, up to {most:.1f} nats.",
    "none": "",
}
DARKEST = 0.55
TALL = 90
"""Tokens from which on the strip scrolls inside itself."""


def strip(tokens: pd.DataFrame, key: str, last: int) -> int:
    """The position of the token that is chosen.

    Args:
        tokens: as `interp.microscope.tokens.token_table`.
        key: of the widget.
        last: what it is if none is chosen.
    """
    names = [visible(token) for token in tokens["token"]]
    by = st.session_state.get("prompt colour", COLOURS[0])
    values = [0.0] * len(tokens) if by not in COLOURS[:2] else list(tokens[by].fillna(0.0))
    st.html(f"<style>{_css(key, values)}</style>")
    with st.container(height=300 if len(tokens) > TALL else "content", border=False):
        chosen = st.pills(
            "Tokens: click one",
            range(len(tokens)),
            format_func=lambda at: plain(f"{names[at]} {_below(at)}"),
            key=key,
            required=True,
        )
    at = last if chosen is None else int(chosen)
    left, right = st.columns([1, 4], vertical_alignment="center")
    left.selectbox("Colour", COLOURS, key="prompt colour")
    right.caption(
        plain(" ".join(filter(None, [SAY[by].format(most=max(values)), _first(tokens, names)])))
    )
    return at


def _below(number: int) -> str:
    """A position in small digits: the browser tells options apart by their labels, and a token may
    be there twice."""
    return "".join(chr(ord("₀") + int(digit)) for digit in str(number))


def _first(tokens: pd.DataFrame, names: list[str]) -> str:
    """What is special about the beginning."""
    special = [f"{names[at]} ({at})" for at in tokens.index[tokens["special"]]]
    said = "Position 0 has no probability, since nothing stands before it; models park attention "
    said += "there, so its activations are no guide."
    return said + (f" Special tokens: {', '.join(special[:6])}." if special else "")


def _css(key: str, values: list[float]) -> str:
    """A background for each button."""
    most = max(values, default=0.0)
    place = "st-key-" + re.sub(r"[^a-zA-Z0-9_-]", "-", key)
    rules = [
        f'.{place} [data-testid="stButtonGroup"] button:nth-of-type({n + 1})'
        f"{{background-color:rgba(59,111,182,{DARKEST * value / most:.3f})}}"
        for n, value in enumerate(values)
        if most and value
    ]
    return "\n".join([f".{place} button{{font-family:monospace;min-height:2rem}}", *rules])
