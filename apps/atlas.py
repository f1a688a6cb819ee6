"""The atlas page: search, the most specialised neurons, one neuron's card, all layers."""

from __future__ import annotations

from typing import get_args

import pandas as pd
import streamlit as st

from interp.apps.address import bound
from interp.apps.common import cached, charts, errors_in_place, in_tabs, offer, pick_run, plain
from interp.model.neuron import NeuronName, parse_neuron
from interp.model.vocabulary import visible
from interp.neurons import figures, layers, search
from interp.runs.store import Run

find, show, top = cached(search.find), cached(search.show), cached(search.top)
density, values_in_layer = cached(search.density), cached(search.values_in_layer)
has_words, above_chance = cached(search.has_words), cached(layers.above_chance)

LIMIT = 50


@errors_in_place()
def page() -> None:
    st.title("Neuron atlas")
    run = pick_run("neurons.atlas")
    model, kinds = run.manifest["model"], run.manifest["kinds"]
    experts = ""
    if search.has_experts(run):
        experts = f", {model['n_experts']} experts of {model['d_expert']} in a layer that has any"
    neurons = f"{model['d_mlp']} × " if not experts else ""
    st.caption(
        plain(
            f"{run.config['model']}: {run.metrics['vectors']:,} neuron vectors "
            f"({model['n_layers']} layers × {neurons}{', '.join(kinds)}{experts}) decoded through "
            f"the LM head, norm {run.config['norm']}, {run.config['k']} tokens a side. "
            f"{search.lens_note(run)}"
        )
    )
    in_tabs({"Neurons": _neurons, "Layers": _layers}, run)


def _neurons(run: Run) -> None:
    """The search boxes, the table of results, and the card of one neuron."""
    left, middle, ranks, right = st.columns([3, 1.4, 1.6, 2], vertical_alignment="bottom")
    word = left.text_input(
        "Find a word",
        key=bound("word", ""),
        placeholder="dog, California, Monday … (empty: the most specialised neurons)",
    )
    if word:
        chosen = middle.toggle(
            "Exact token",
            key=bound("exact", False),
            help="Only this token, not its whole word family.",
        )
    else:
        chosen = middle.toggle(
            "Words only",
            key=bound("words", has_words(run)),
            help="Leave out punctuation and fragments.",
        )
    by = ranks.selectbox(
        "Rank by",
        get_args(search.Rank),
        key=bound("by", get_args(search.Rank)[0], get_args(search.Rank)),
        disabled=not search.has_random(run),
        help="score: one word stands out. coherence: the tokens belong together.",
    )
    typed = right.text_input(
        "Or name a neuron",
        key=bound("neuron", ""),
        placeholder="29.gate.808",
        help="Clear it to follow the table again.",
    )
    name = ""
    with errors_in_place():
        name = _results(run, word, chosen, by)
    st.caption(plain(search.chance_note(run)))
    with errors_in_place():
        if typed or name:
            _card(run, parse_neuron(typed or name))


def _results(run: Run, word: str, chosen: bool, by: search.Rank) -> str:
    """The table of a search; returns the name of the neuron that is selected in it."""
    if word:
        rows = find(run, word, chosen, LIMIT, by)
        command = ["search", word, *(["--exact"] if chosen else [])]
        call = f"search.find(atlas, {word!r}, exact={chosen}, limit={LIMIT}, by={by!r})"
        columns = ["rank", "word_z", "lead"]
    else:
        rows = top(run, LIMIT, None, None, chosen, by)
        command = ["top", *(["--words-only"] if chosen else [])]
        call = f"search.top(atlas, limit={LIMIT}, words_only={chosen}, by={by!r})"
        columns = ["z", "margin", "kurtosis"]
    ranked = {"score": ["score", "p", "q"], "coherence": ["coherence", "coherence_p", "score", "p"]}
    shown = rows.filter(["name", "side", *ranked[by], *columns, "tokens"])
    name = _selected(shown, key=f"rows {run.path} {word} {chosen} {by}")
    command += ["--by", by, "--limit", str(LIMIT)]
    _offer(rows, f"neurons {word or 'top'}", run, command, call)
    return name


def _selected(rows: pd.DataFrame, key: str) -> str:
    """The rows as a table; returns the selected neuron's name, at first that of the first row."""
    shown = rows.assign(tokens=rows["tokens"].map(lambda ts: [visible(t) for t in ts]))
    two_digits = st.column_config.NumberColumn(format="%.2f")
    chances = st.column_config.NumberColumn(format="%.4f")
    formats = {c: chances if c.endswith(("p", "q")) else two_digits for c in map(str, rows)}
    event = st.dataframe(
        shown,
        key=key,
        hide_index=True,
        height=min(38 + 35 * len(shown), 360),
        on_select="rerun",
        selection_mode="single-row",
        column_config={str(c): formats[str(c)] for c in rows.select_dtypes("float")},
    )
    chosen = event["selection"]["rows"]
    return str(rows["name"].iloc[chosen[0] if chosen else 0])


def _card(run: Run, name: NeuronName) -> None:
    st.subheader(plain(name))
    rows = show(run, name)
    charts("tokens", figures.neuron_tokens(rows))
    ranked = ["score", "p", "q", "coherence", "coherence_p", "coherence_q"]
    st.dataframe(rows.filter(["side", *ranked]), hide_index=True)
    statistic = st.selectbox("Where it stands by", search.statistics(run))
    here = dict(zip(rows["side"], rows[statistic], strict=True))
    values, among = values_in_layer(run, name, statistic), f"layer {name.layer}, {name.kind}"
    charts("standing", figures.standing(values, here, statistic, among))
    call = f"figures.neuron_tokens(search.show(atlas, {str(name)!r}))"
    _offer(rows, f"neuron {name}", run, ["show", str(name)], call)


def _layers(run: Run) -> None:
    statistic = st.selectbox("Statistic", search.statistics(run), key="overview")
    counts = density(run, statistic)
    charts("density", figures.layer_density(counts, statistic))
    st.caption("The notebook call makes this picture; the command lists its extremes.")
    call = f"figures.layer_density(search.density(atlas, {statistic!r}), {statistic!r})"
    _offer(counts, f"layers {statistic}", run, ["top"], call)
    if run.config.get("random", 0) >= layers.needed(run):
        shares = above_chance(run)
        charts("shares", figures.shares(shares))
        call = "from interp.neurons.layers import above_chance\nfigures.shares(above_chance(atlas))"
        _offer(shares, "shares of layers", run, ["layers"], call)


def _offer(rows: pd.DataFrame, name: str, run: Run, command: list[str], call: str) -> None:
    opened = (
        "from pathlib import Path\nfrom interp.neurons import figures, search\n"
        f"atlas = search.open_atlas(Path({str(run.path)!r}))\n"
    )
    offer(rows, name, ["interp", "neurons", *command, "--atlas", str(run.path)], opened + call)
