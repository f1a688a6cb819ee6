"""The directions page: any set that an analysis found, decoded and compared."""

from __future__ import annotations

import streamlit as st

from interp.apps.address import bound
from interp.apps.carry import carry_on
from interp.apps.common import consent, errors_in_place, in_tabs
from interp.apps.offering import offer
from interp.apps.sets import (
    LENSES,
    LIMIT,
    OpenSet,
    cautions,
    choose_sae,
    decoded,
    head,
    opened_set,
    opening,
    selected,
    stored_sets,
    words,
)
from interp.apps.shown import charts
from interp.apps.words import called, plain
from interp.directions import figures
from interp.directions.compare import cosines, gain_between, meaning, pairs
from interp.errors import UserError
from interp.lens.files import open_lens
from interp.lens.told import told
from interp.model.neuron import parse_neuron
from interp.model.weights import open_weights
from interp.runs.store import Store

NEURONS, LATENTS = "neurons by name", "latents of an SAE"
USUAL = "29.down.808,29.down.1499"


@errors_in_place()
def page() -> None:
    st.title("Directions")
    st.caption("Everything an analysis finds is a vector at one site of a model.")
    opened = choose_set("Directions")
    head(opened)
    shown = f", of which the first {LIMIT} are shown" if opened.total > LIMIT else ""
    width = opened.directions.vectors.shape[1]
    st.caption(plain(f"{opened.total:,} directions{shown}, {width} numbers each."))
    in_tabs({"Through the LM head": _decoded, "Against another set": _compared}, opened)


def _decoded(opened: OpenSet) -> None:
    consent(opened.model)
    lens = st.selectbox("Lens", LENSES, key=bound("lens", "raw", LENSES))
    for caution in cautions(opened.directions):
        st.warning(plain(caution))
    table = decoded(opened, opened.model, 10, lens)
    st.caption(plain(told(open_lens(lens, open_weights(opened.model)).about)))
    shown = table.drop(columns=["top_logits", "bottom_logits"])
    picked = selected(shown, f"rows {opened.source}")
    if picked is not None:
        carry_on(opened.texts[picked], opened.model, "row")
    call = (
        opening(opened.source, opened.model)
        + "from interp import open_weights\n"
        + f"directions.decode(open_weights({opened.model!r}), k=10, lens={lens!r})"
    )
    how = ["--lens", lens] if lens != "raw" else []
    offer(
        table,
        "directions",
        words("decode", opened.source, *how, model=opened.model),
        call,
        of="directions",
    )


def _compared(opened: OpenSet) -> None:
    other = choose_set("Other directions", "other ")
    ours, theirs = opened.directions, other.directions
    weights = None
    if opened.model == other.model and gain_between(ours, theirs):
        consent(opened.model)
        weights = open_weights(opened.model)
    cosine, how = cosines(ours, theirs, weights)
    charts(
        "cosines",
        figures.cosine_map(cosine, ours.names, theirs.names),
        shows=f"The cosine of each with each of the other set. {how} Chance gives values near 0.",
        found=meaning(ours, theirs),
    )
    rows = pairs(ours, theirs, len(ours) * len(theirs), weights)
    call = (
        opening(opened.source, opened.model, "a")
        + opening(other.source, other.model, "b")
        + "from interp import open_weights\n"
        + "from interp.directions import figures\n"
        + "from interp.directions.compare import cosines\n"
        + f"made = cosines(a, b, {'open_weights(a.model)' if weights else None})\n"
        + "figures.cosine_map(made.cosine, a.names, b.names)"
    )
    command = words("compare", opened.source, other.source, model=opened.model)
    offer(rows, "cosines", command, call, of="directions")


def choose_set(label: str, prefix: str = "") -> OpenSet:
    """A stored set, neurons of the model by name, or latents of an SAE that is stored or shipped.

    Args:
        prefix: of the URL's parameters, where a page has two choosers.
    """
    sets = stored_sets(Store())
    options = [*sets, NEURONS, LATENTS]
    what = st.selectbox(
        plain(label),
        options,
        key=bound(f"{prefix}set", options[0], options, always=True),
        format_func=called(sets),
    )
    if what in sets:  # a browser can send any text
        return opened_set(str(what))
    if what == LATENTS:
        left, right = st.columns([2, 1])
        with left:
            sae = choose_sae(f"{prefix}sae")
        numbers = right.text_input("Latents", key=bound(f"{prefix}latents", "0,1,2"))
        if not all(number.strip().isdecimal() for number in numbers.split(",")):
            raise UserError(f"'{numbers}' are no numbers of latents: write 12,15")
        return opened_set(f"sae:{sae}:{numbers}")
    named = st.text_input("Neurons", key=bound(f"{prefix}neurons", USUAL))
    if not named.strip():
        raise UserError("name a neuron: 29.down.808")
    for name in named.split(","):
        parse_neuron(name)
    return opened_set(named)
