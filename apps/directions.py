"""The directions page: any set that an analysis found, decoded and compared."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import streamlit as st

from interp.apps.common import download, errors_in_place, plain, reproduce
from interp.directions import Directions, figures, stored_directions
from interp.directions.inspect import names
from interp.directions.sources import open_directions
from interp.model.vocabulary import visible
from interp.model.weights import open_weights
from interp.runs.store import Store

LIMIT = 50
"""Directions shown at once: a set of a million is for the command line."""


@st.cache_data(show_spinner="reading the unembedding …", max_entries=32)
def decoded(source: str, model: str, k: int) -> pd.DataFrame:
    opened = open_directions(source, model or None)
    return _first(opened).decode(open_weights(model or opened.model), k)


def _first(directions: Directions) -> Directions:
    return directions.pick(list(range(min(len(directions), LIMIT))))


def page() -> None:
    st.title("Directions")
    st.caption("Everything an analysis finds is a vector at one site of a model.")
    with errors_in_place():
        model = st.sidebar.text_input("Model, if not the directions' own", "", key="of model")
        source, directions = choose_directions("Directions", model=model)
        _facts(directions)
        decoding, comparing = st.tabs(["Through the LM head", "Against another set"])
        with decoding, errors_in_place():
            _decoded(source, model)
        with comparing, errors_in_place():
            _compared(source, directions, model)


def _facts(directions: Directions) -> None:
    where = ", ".join(f"{name}: {value}" for name, value in directions.provenance.items())
    width = directions.vectors.shape[1]
    st.caption(plain(f"{len(directions)} at {directions.site}, {width} numbers each; {where}"))


def _decoded(source: str, model: str) -> None:
    table = decoded(source, model, 10)
    st.dataframe(
        table.assign(**{side: table[side].map(_shown) for side in ("top", "bottom")}).drop(
            columns=["top_logits", "bottom_logits"]
        ),
        hide_index=True,
        width="stretch",
    )
    download(table, "directions")
    chosen = ["--model", model] if model else []
    reproduce(
        ["interp", "directions", "decode", source, *chosen],
        "from interp.directions.sources import open_directions\n"
        "from interp.model.weights import open_weights\n"
        f"directions = open_directions({source!r}, {model or None!r})\n"
        f"directions.decode(open_weights({repr(model) if model else 'directions.model'}), k=10)",
    )


def _shown(tokens: list[str]) -> str:
    return " ".join(map(visible, tokens))


def _compared(source: str, directions: Directions, model: str) -> None:
    other_source, other = choose_directions("Other directions", "other", model)
    ours, theirs = _first(directions), _first(other)
    cosine = ours.cosine(theirs)
    st.plotly_chart(figures.cosine_map(cosine, names(ours), names(theirs)), width="stretch")
    download(pd.DataFrame(cosine.numpy(), names(ours), names(theirs)).reset_index(), "cosines")
    chosen = ["--model", model] if model else []
    sources = (source, other_source)
    opened = ", ".join(f"open_directions({each!r}, {model or None!r})" for each in sources)
    reproduce(
        ["interp", "directions", "compare", *sources, *chosen],
        "from interp.directions import figures, open_directions\n"
        "from interp.directions.inspect import names\n"
        f"a, b = {opened}\n"
        "figures.cosine_map(a.cosine(b), names(a), names(b))",
    )


def choose_directions(label: str, key: str = "", model: str = "") -> tuple[str, Directions]:
    """A stored set, or neurons of the model by name: the text that opens it, and the directions."""
    stored = [str(folder) for folder in stored_directions(Store())]
    typed = "neurons by name"
    what = st.selectbox(label, [*stored, typed], key=f"set {key}", format_func=_short)
    if what != typed:
        return what, Directions.load(Path(what))
    named = st.text_input("Neurons", "29.down.808,29.down.1499", key=f"neurons {key}")
    return named, open_directions(named, model or None)


def _short(folder: str) -> str:
    """The end of a path: study, key and the set's own name."""
    return "/".join(Path(folder).parts[-3:])
