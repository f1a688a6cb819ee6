"""Views of one direction that need weights and no text: what is nearest to it, and another beside
it."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from interp.apps.address import bound
from interp.apps.answers import remembered
from interp.apps.carry import carry_on
from interp.apps.columns import shown_table
from interp.apps.common import consent, consent_to_sae, errors_in_place
from interp.apps.offering import offer
from interp.apps.sets import (
    OpenSet,
    choose_sae,
    decoded,
    head,
    opened_set,
    opening,
    recent,
    selected,
    spelled,
    words,
)
from interp.apps.shown import charts
from interp.apps.words import called, plain
from interp.directions import figures
from interp.directions.collections import collection_names, open_collection
from interp.directions.compare import cosines, meaning, pairs, why_not
from interp.directions.nearest import nearest_neurons, neurons_there
from interp.directions.sets import sae_place
from interp.latents import nearest as latents_nearest
from interp.model.weights import open_weights
from interp.runs.store import Store

LIMIT = 20
_AT_ONCE = 500_000_000
"""Numbers of a model whose weights are read without being asked for."""
_KINDS = ("up", "gate", "down")


def nearest(opened: OpenSet) -> None:
    """The neurons of the model, and the latents of an SAE, that are most alike."""
    weights = open_weights(opened.model)
    st.subheader("Neurons")
    kinds = st.multiselect(
        "Kinds",
        weights.spec.kinds,
        key=bound("kinds", (), read=_kinds),
        placeholder="all: what reads (up, gate) and what writes (down)",
    )
    kinds = [kind for kind in kinds if kind in _KINDS]
    if weights.numbers > _AT_ONCE and not st.toggle("Read all weights of the model", key="all"):
        st.info(f"The model has {weights.numbers:,} numbers: reading them takes a while.")
    else:
        with errors_in_place():
            _neurons(opened, kinds)
    st.subheader("Latents of an SAE")
    if st.toggle("Compare with an SAE", key=bound("latents", False)):
        with errors_in_place():
            _latents(opened)


def _kinds(text: str) -> list[str]:
    return [kind for kind in text.split(",") if kind in _KINDS]


def _neurons(opened: OpenSet, kinds: list[str]) -> None:
    weights = open_weights(opened.model)

    def make() -> pd.DataFrame:
        with st.spinner("reading the weights of every layer …"):
            return nearest_neurons(opened.directions, weights, LIMIT, kinds)

    key = ("nearest", opened.print, opened.source, weights.fingerprint(), *kinds)
    rows = remembered(key, make)
    there = neurons_there(weights, kinds)
    level = latents_nearest.chance_level(weights.spec.d_model, there)
    st.caption(
        plain(
            "Cosines in the residual stream, the norm's gain included for those that read. Of "
            f"{there:,} random directions in {weights.spec.d_model:,} dimensions the largest is "
            f"above {level:.3f} once in 20 times: a surprise is what is far above it."
        )
    )
    chosen = selected(rows.drop(columns="name"), f"neurons {opened.source} {kinds}")
    if chosen is not None:
        carry_on(str(rows["neuron"].iloc[chosen]), opened.model, "neuron")
    words_of = [word for kind in kinds for word in ("--kind", kind)]
    how = ["--limit", str(LIMIT), *words_of]
    call = (
        opening(opened.source, opened.model)
        + "from interp import open_weights\n"
        + "from interp.directions.nearest import nearest_neurons\n"
        + f"nearest_neurons(directions, open_weights({opened.model!r}), {LIMIT}, {kinds!r})"
    )
    offer(
        rows,
        "nearest neurons",
        words("nearest", opened.source, *how, model=opened.model),
        call,
        of="directions",
    )


def _latents(opened: OpenSet) -> None:
    source = choose_sae("sae")
    consent_to_sae(source)
    from interp.saes import open_sae
    from interp.saes.open import saes_fingerprint

    place, weights = sae_place(source, Store()), open_weights(opened.model)

    def make() -> pd.DataFrame:
        with st.spinner("opening the SAE …"):
            sae = open_sae(place)
            sae.check_model(opened.model, source)
            return latents_nearest.nearest(opened.directions, sae, LIMIT, weights=weights)

    print = saes_fingerprint(place)
    key = ("nearest latents", opened.print, opened.source, weights.fingerprint(), print)
    rows = remembered(key, make)
    st.caption(
        "Cosines in the residual stream, the norm's gain included for those that read. decoder: "
        "with what a latent writes; encoder: with what it reads; p: how often the largest of as "
        "many random directions is as large."
    )
    chosen = selected(rows.drop(columns="name"), f"latents {opened.source} {source}")
    if chosen is not None:
        carry_on(f"sae:{source}:{rows['latent'].iloc[chosen]}", opened.model, "latent")
    command = ["interp", "saes", "nearest", opened.source, "--saes", place]
    call = (
        opening(opened.source, opened.model)
        + "from interp.latents.nearest import nearest\n"
        + "from interp.saes import open_sae\n"
        + f"nearest(directions, open_sae({place!r}), {LIMIT})"
    )
    offer(rows, "nearest latents", [*command, "--model", opened.model], call, of="directions")


def compare(opened: OpenSet) -> None:
    """Another direction, or a set, beside this one."""
    other = _other(opened)
    if not other:
        st.info("Name another direction: one that you visited, one you keep, or type its text.")
        return
    theirs = opened_set(other, opened.model)
    head(theirs)
    if theirs.model != opened.model:
        consent(theirs.model)
    same = theirs.model == opened.model
    weights = open_weights(opened.model) if same else None
    if not opened.directions.provenance.same_model(theirs.directions.provenance):
        st.warning(plain(why_not(opened.directions, theirs.directions) + ": a cosine says little"))
    rows = pairs(opened.directions, theirs.directions, LIMIT, weights)
    st.markdown(plain(meaning(opened.directions, theirs.directions)))
    if theirs.total == 1:
        shown = {name: rows[name].iloc[0] for name in rows.columns if name not in ("name", "other")}
        for column, (name, value) in zip(st.columns(len(shown)), shown.items(), strict=True):
            column.metric(plain(_NAMED[name]), "none" if pd.isna(value) else f"{value:.3f}")
    else:
        cosine, told = cosines(opened.directions, theirs.directions, weights)
        names = opened.directions.names, theirs.directions.names
        charts(
            "cosines",
            figures.cosine_map(cosine, *names),
            shows=f"Its cosine with each of the other set. {told} Near 0 is what chance gives.",
        )
        shown_table(rows, "pairs", "directions")
    with errors_in_place():
        _side_by_side(opened, theirs)
    call = (
        opening(opened.source, opened.model)
        + opening(other, opened.model, "others")
        + "from interp import open_weights\n"
        + "from interp.directions.compare import pairs\n"
        + f"pairs(directions, others, {LIMIT}, open_weights({opened.model!r}))"
    )
    offer(
        rows,
        "compared",
        words("compare", opened.source, other, model=opened.model),
        call,
        of="directions",
    )


_NAMED = {
    "cosine": "cosine",
    "coupling": "coupling",
    "in_stream": "cosine in the stream, before the norm",
}


def _other(opened: OpenSet) -> str:
    """The text of another direction: visited, kept, or typed."""
    place = bound("other", "")
    known = [each for each in [*recent(), *_kept()] if each != opened.source]
    now = str(st.session_state.get(place) or "")
    found = st.selectbox(
        "With",
        list(dict.fromkeys(["", now, *known])),
        key=place,
        accept_new_options=True,
        format_func=called({}, "choose or type one"),
    )
    return str(found or "").strip("\n")


def _kept() -> list[str]:
    """The texts of what the collections keep."""
    store, found = Store(), []
    for name in collection_names(store):
        with errors_in_place():
            found += [f"kept:{name}:{e.id}" for e in open_collection(name, store).directions]
    return found


def _side_by_side(*every: OpenSet) -> None:
    """What each spells, in one table."""
    rows = []
    for opened in every:
        table = decoded(opened, opened.model, 10, "raw")
        sites = str(opened.directions.site)
        rows += [spelled(table.iloc[[i]], table["name"][i], sites) for i in range(len(table))]
    shown_table(pd.DataFrame(rows), "side by side", "directions")
