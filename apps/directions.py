"""The directions page: any set that an analysis found, decoded and compared."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import streamlit as st

from interp.apps.common import charts, consent, errors_in_place, in_tabs, offer, plain
from interp.data import FOLDER
from interp.directions import Directions, figures, stored_directions
from interp.directions.sources import neuron_directions, open_directions
from interp.errors import UserError
from interp.lens.files import open_lens
from interp.lens.told import told
from interp.model.catalog import DEFAULT_MODEL
from interp.model.neuron import parse_neuron
from interp.model.vocabulary import visible
from interp.model.weights import open_weights
from interp.runs.store import Store
from interp.saes.fold import FILES
from interp.saes.layouts import find

LENSES = ("raw", "final", "tuned", "jacobian")
LIMIT = 50
"""Directions shown at once: a set of a million is for the command line."""


@st.cache_data(show_spinner="reading the unembedding …", max_entries=32)
def decoded(source: str, model: str, k: int, lens: str, content: str) -> pd.DataFrame:
    """Read once for the content of a lens and of a set, which others may replace by their names."""
    opened = open_directions(source, model or None)
    return _first(opened).decode(open_weights(model or opened.model), k, lens)


def _first(directions: Directions) -> Directions:
    return directions.pick(list(range(min(len(directions), LIMIT))))


@errors_in_place()
def page() -> None:
    st.title("Directions")
    st.caption("Everything an analysis finds is a vector at one site of a model.")
    model = st.sidebar.text_input("Model, if not the directions' own", "", key="of model")
    source, directions = choose_directions("Directions", model=model)
    made, width = directions.provenance, directions.vectors.shape[1]
    where = ", ".join(filter(None, (made.analysis, made.run, f"of {made.model or 'no model'}")))
    about = f"{len(directions)} at {directions.site}, {width} numbers each; {where}"
    st.caption(plain(f"{about}. Their score: {directions.read_as}, at {directions.read_at}."))
    views = {"Through the LM head": _decoded, "Against another set": _compared}
    in_tabs(views, source, directions, model)


def _decoded(source: str, directions: Directions, model: str) -> None:
    if not model:
        consent(directions.model)
    lens = st.selectbox("Lens", LENSES, format_func=plain, key="lens")
    if lens not in LENSES:  # a browser can send any text
        raise UserError(f"'{lens}' is no lens of the list: choose one")
    opened = open_lens(lens, open_weights(model or directions.model))
    st.caption(plain(told(opened.about)))
    content = f"{opened.identity} {_first(directions).identity}"
    table = decoded(source, model, 10, lens, content)
    shown = table.drop(columns=["top_logits", "bottom_logits"])
    for side in ("top", "bottom"):
        shown[side] = [" ".join(map(visible, tokens)) for tokens in table[side]]
    st.dataframe(shown, hide_index=True)
    call = (
        "from interp.directions.sources import open_directions\n"
        "from interp.model.weights import open_weights\n"
        f"directions = open_directions({source!r}, {model or None!r})\n"
        f"directions.decode(open_weights({repr(model) if model else 'directions.model'}), k=10, "
        f"lens={lens!r})"
    )
    words = _command("decode", source, *(["--lens", lens] if lens != "raw" else []), model=model)
    offer(table, "directions", words, call)


def _compared(source: str, directions: Directions, model: str) -> None:
    other_source, other = choose_directions("Other directions", "other", model)
    ours, theirs = _first(directions), _first(other)
    cosine = ours.cosine(theirs)
    charts("cosines", figures.cosine_map(cosine, ours.names, theirs.names))
    sources = (source, other_source)
    opened = ", ".join(f"open_directions({each!r}, {model or None!r})" for each in sources)
    call = (
        "from interp.directions import figures, open_directions\n"
        f"a, b = {opened}\n"
        "figures.cosine_map(a.cosine(b), a.names, b.names)"
    )
    rows = pd.DataFrame(cosine.numpy(), ours.names, theirs.names).reset_index()
    offer(rows, "cosines", _command("compare", *sources, model=model), call)


def _command(*words: str, model: str) -> list[str]:
    return ["interp", "directions", *words, *(["--model", model] if model else [])]


def choose_directions(label: str, key: str = "", model: str = "") -> tuple[str, Directions]:
    """A stored set, neurons of the model by name, or latents of an SAE that is stored or shipped:
    the text that opens it, and the directions."""
    stored = [str(folder) for folder in stored_directions(Store())]
    typed = ["neurons by name", "latents of an SAE"]
    # study, key and the set's own name are the end of its path
    what = st.selectbox(
        plain(label),
        [*stored, *typed],
        key=f"set {key}",
        format_func=lambda s: "/".join(Path(s).parts[-3:]),
    )
    if what in stored:  # a browser can send any text
        return what, Directions.load(Path(what))
    if what == typed[1]:
        return _latents(key, model)
    named = st.text_input("Neurons", "29.down.808,29.down.1499", key=f"neurons {key}")
    neurons = [parse_neuron(name) for name in named.split(",")]
    return named, neuron_directions(open_weights(model or DEFAULT_MODEL), neurons)


def _latents(key: str, model: str) -> tuple[str, Directions]:
    """Latents by number, of an SAE in a stored run or of a shipped one."""
    runs = [run.path for run in Store().runs() if any(Path(f).name in FILES for f in run.files)]
    places = [str(found.place) for root in (*runs, FOLDER) for found in find(root)]
    left, right = st.columns([2, 1])
    place = left.selectbox(
        "SAE", places, key=f"sae {key}", format_func=lambda s: "/".join(Path(s).parts[-3:])
    )
    numbers = right.text_input("Latents", "0,1,2", key=f"latents {key}")
    if place not in places:
        raise UserError("there is no such SAE in a stored run: choose one of the list")
    if not all(number.strip().isdecimal() for number in numbers.split(",")):
        raise UserError(f"'{numbers}' are no numbers of latents: write 12,15")
    source = f"sae:{place}:{numbers}"
    return source, open_directions(source, model or None)
