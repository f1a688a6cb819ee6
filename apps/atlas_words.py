"""The columns of an atlas in words, for those who read its tables on a page."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

_CHANCE = "%.4f"
_COLUMNS = {
    "name": ("vector", "Layer, kind and number of the neuron.", ""),
    "side": ("side", "top: the vector itself. bottom: its negation.", ""),
    "score": (
        "score",
        "The z of the word's best token plus its lead over the best token of any other word, in "
        "standard deviations of the row's logits.",
        "%.2f",
    ),
    "p": ("p", "The share of random directions that score as much.", _CHANCE),
    "q": ("q", "Of the rows that score as much, the share that chance gives.", _CHANCE),
    "coherence": (
        "coherence",
        "How much the tokens belong together: the mean cosine of their rows of the LM head, "
        "whitened, from -1 to 1.",
        "%.3f",
    ),
    "coherence_p": ("p of it", "The share of random directions as coherent.", _CHANCE),
    "coherence_q": ("q of it", "Of the rows as coherent, the share that chance gives.", _CHANCE),
    "rank": ("place", "The place of the word's best token in the list, from 1.", "%d"),
    "word_z": (
        "z of the word",
        "How far its best token is above the row's mean, in standard deviations.",
        "%.2f",
    ),
    "lead": ("lead", "How far it is before the best token of any other word.", "%.2f"),
    "z": ("z", "How far the first token is above the row's mean, in standard deviations.", "%.2f"),
    "margin": ("margin", "The lead of the first token over the best of another word.", "%.2f"),
    "kurtosis": ("kurtosis", "Excess kurtosis of the row's logits; 0 is a normal law's.", "%.2f"),
    "skewness": ("skewness", "Skewness of the row's logits, signed by the side.", "%.2f"),
    "norm": ("length", "The length of the vector.", "%.3g"),
    "tokens": ("tokens", "The most extreme tokens, the first one first.", ""),
}


def column_config(rows: pd.DataFrame) -> dict[str, Any]:
    """For `st.dataframe`: a column's name in words, what it says on hover, and its digits."""
    found: dict[str, Any] = {}
    for name in map(str, rows):
        label, told, digits = _COLUMNS[name]
        if digits:
            found[name] = st.column_config.NumberColumn(label, help=told, format=digits)
        else:
            found[name] = st.column_config.Column(label, help=told)
    return found
