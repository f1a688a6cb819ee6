"""A node of a circuit: its card, and where to go on from a neuron."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from interp.apps.carry import carry_on
from interp.apps.columns import shown_table
from interp.apps.common import link
from interp.apps.offering import code
from interp.apps.words import plain
from interp.circuits.picked import NUMBERS, TRACE, By, Graph, card, flowing, place, words
from interp.columns import column
from interp.errors import UserError
from interp.model.neuron import clamp_site, parse_neuron
from interp.model.vocabulary import visible
from interp.plain_text import printable
from interp.runs.command import store_words
from interp.runs.store import Run, Store


def node_card(graph: Graph, node: int, by: By) -> None:
    """One node: numbers, tokens, edges, and where to go on from it."""
    shown = card(graph, node, by)
    row = shown.node
    st.subheader(plain(row["label"]))
    st.caption(plain(place(row, graph.tokens)))
    numbers = {name: row[name] for name in NUMBERS if name in row and row[name] == row[name]}
    with st.container(horizontal=True):
        for name, value in numbers.items():
            known = "attention" if (row["kind"], name) == ("head", "activation") else name
            about = column(known, TRACE)
            st.metric(plain(about.words), f"{value:.3g}", width="content", help=plain(about.help))
    for side, said in (("top", "Writes"), ("bottom", "Against")):
        if tokens := words(row, side):
            st.caption(plain(said))
            st.text("  ".join(printable(visible(token)) for token in tokens))
    if len(members := list(row.get("members", []))):
        st.caption("Members")
        st.text("  ".join(printable(str(each)) for each in members))
    for name, ends in (("Edges in", shown.incoming), ("Edges out", shown.outgoing)):
        together = f", {flowing(ends, by).sum():+.4g} together" if len(ends) else ""
        st.caption(plain(f"{name}: {len(ends)}{together}"))
        shown_table(ends, f"{name} {node}", TRACE)
    if row["kind"] == "neuron":
        _neuron(graph, str(row["name"]))


def _neuron(graph: Graph, name: str) -> None:
    """A neuron on the pages of its model, and the command that clamps it."""
    about = graph.about
    try:
        neuron = parse_neuron(name)
        clamp_site(neuron)
    except UserError as error:
        st.caption(plain(error))
        return
    store = Store()
    atlas = _first(store, "neurons.atlas", lambda run: _same_model(run, graph))
    clamped = _first(
        store, "neurons.clamp", lambda run: _same_model(run, graph) and run.config["neuron"] == name
    )
    with st.container(horizontal=True):
        if atlas:
            link("atlas", "In the neuron atlas", run=atlas.path.name, neuron=name)
        if clamped:
            link("clamp", "Clamped", run=clamped.path.name)
        carry_on(name, str(about["model"]), "node")
    where = store_words(store.root)
    if not atlas:
        st.caption("There is no atlas of this model yet:")
        code(["interp", "neurons", "atlas", "--model", str(about["model"]), *where])
    if not clamped:
        st.caption("Hold it at a sweep of values, for the page Clamp:")
        prompt, word = str(about["prompt"]), str(about.get("target", "")).strip()
        held = [f"--neuron={name}", f"--prompt={prompt}", "--no-chat"]
        held += [f"--word={word}"] if word else []
        code(["interp", "neurons", "clamp", *held, "--model", str(about["model"]), *where])


def _first(store: Store, study: str, fits: Callable[[Run], bool]) -> Run | None:
    return next((run for run in store.looked_through(study)[0] if fits(run)), None)


def _same_model(run: Run, graph: Graph) -> bool:
    return bool(graph.model_print) and (
        run.manifest.get("fingerprints", {}).get("model") == graph.model_print
    )
