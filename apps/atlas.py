"""The atlas page: search, the most specialised neurons, one neuron's card, all layers."""

from __future__ import annotations

from typing import get_args

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from interp.apps.address import bound
from interp.apps.atlas_card import card, offer_of
from interp.apps.columns import shown_table
from interp.apps.common import cached, errors_in_place, in_tabs
from interp.apps.offering import code
from interp.apps.picking import pick_run
from interp.apps.shown import charts
from interp.apps.words import listed, plain
from interp.model.neuron import parse_neuron
from interp.neurons import figures, layers, search
from interp.neurons.index import index_of
from interp.neurons.rows import has_random
from interp.plots import row_at_most
from interp.runs.store import Run

find, top = cached(search.find), cached(search.top)
density = cached(search.density)
has_words, above_chance = cached(search.has_words), cached(layers.above_chance)

LIMIT = 50
ALL = "all"


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
    if index_of(run) is None:
        st.caption(
            "This atlas has no search index, so each question reads all of it, for seconds. With "
            "one it takes a fraction of a second. Make it in a terminal:"
        )
        code(["interp", "neurons", "index", "--atlas", str(run.path)])
    in_tabs({"Neurons": _neurons, "Layers": _layers}, run)


def _neurons(run: Run) -> None:
    """The search boxes, the table of results, and the card of one neuron."""
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    word = left.text_input(
        "Find a word",
        key=bound("word", ""),
        placeholder="dog, California, Monday … (empty: the most specialised neurons)",
    )
    place = bound("neuron", "")
    name = right.text_input(
        "Or name a neuron", key=place, placeholder="29.gate.808", help="Empty: no card."
    )
    with errors_in_place():
        _results(run, word, place)
    st.caption(plain(search.chance_note(run)))
    with errors_in_place():
        if name:
            card(run, parse_neuron(name))
        else:
            st.caption("Tick a row of the table, or name a neuron, to see its card.")


def _results(run: Run, word: str, place: str) -> None:
    """The boxes that narrow a search down, and its table; a row that is ticked goes to the state
    `place`."""
    first, second, *others = st.columns([1.4, 1.6, 1.2, 1.2], vertical_alignment="bottom")
    if word:
        chosen = first.toggle(
            "Exact token",
            key=bound("exact", False),
            help="Only this token, not its whole word family.",
        )
    else:
        chosen = first.toggle(
            "Words only",
            key=bound("words", has_words(run)),
            help="Leave out punctuation and fragments.",
        )
    ranks = get_args(search.Rank)
    by = second.selectbox(
        "Rank by", ranks, key=bound("by", ranks[0], ranks), format_func=listed,
        disabled=not has_random(run),
        help="score: one word stands out. coherence: the tokens belong together.",
    )  # fmt: skip
    layer, kind = _only(run, others)
    rows, command, call, columns = _asked(run, word, chosen, by, layer, kind)
    ranked = {"score": ["score", "p", "q"], "coherence": ["coherence", "coherence_p", "score", "p"]}
    shown = rows.filter(["name", "side", *ranked[by], *columns, "tokens"])
    _table(shown, f"rows {run.path.name} {word} {chosen} {by} {layer} {kind}", run.study, place)
    offer_of(rows, f"neurons {word or 'top'}", run, command, call)


def _only(run: Run, columns: list[DeltaGenerator]) -> tuple[int | None, str | None]:
    """The layer and the kind that are asked for; None for all."""
    layers = [ALL, *map(str, range(run.manifest["model"]["n_layers"]))]
    layer = columns[0].selectbox(
        "Layer", layers, key=bound("layer", ALL, layers), format_func=listed
    )
    kinds = [ALL, *run.manifest["kinds"]]
    kind = columns[1].selectbox(
        "Kind", kinds, key=bound("kind", ALL, kinds), format_func=listed,
        help="up and gate: what a neuron reads. down: what it writes.",
    )  # fmt: skip
    return None if layer == ALL else int(layer), None if kind == ALL else kind


def _asked(
    run: Run, word: str, chosen: bool, by: search.Rank, layer: int | None, kind: str | None
) -> tuple[pd.DataFrame, list[str], str, list[str]]:
    """The rows found, the command and the notebook call that find them, the columns to show."""
    only = {"layer": layer, "kind": kind}
    options = [f"--{name}={value}" for name, value in only.items() if value is not None]
    options = ["--by", by, "--limit", str(LIMIT), *options]
    more = f", layer={layer}" if layer is not None else ""
    if word:
        kinds = (kind,) if kind else ()
        rows = find(run, word, chosen, LIMIT, by, kinds, None, layer)
        more += f", kinds={kinds}" if kinds else ""
        call = f"search.find(atlas, {word!r}, exact={chosen}, limit={LIMIT}, by={by!r}{more})"
        command = ["search", word, *(["--exact"] if chosen else []), *options]
        return rows, command, call, ["rank", "word_z", "lead"]
    rows = top(run, LIMIT, layer, kind, chosen, by)
    more += f", kind={kind!r}" if kind else ""
    call = f"search.top(atlas, limit={LIMIT}, words_only={chosen}, by={by!r}{more})"
    command = ["top", *(["--words-only"] if chosen else []), *options]
    return rows, command, call, ["z", "margin", "kurtosis"]


def _table(rows: pd.DataFrame, key: str, study: str, place: str) -> None:
    """The rows found. The name of the one that is ticked goes to the state `place`."""

    def ticked() -> None:
        chosen = st.session_state[key]["selection"]["rows"]
        names = [str(rows["name"].iloc[row]) for row in chosen if 0 <= row < len(rows)]
        st.session_state[place] = names[0] if names else ""

    shown_table(rows, key, study, on_select=ticked, selection_mode="single-row")


def _layers(run: Run) -> None:
    known = search.statistics(run)
    statistic = st.selectbox(
        "Statistic", known, key=bound("statistic", known[0], known), format_func=listed
    )
    counts = density(run, statistic)
    charts(
        "density",
        figures.layer_density(counts, statistic),
        shows=f"A column is a layer: the share of its vectors, both signs, at each {statistic}. "
        "Layers are alike in a model of random weights; a layer with a long tail would be a "
        "surprise, for there neurons specialise.",
        found=_tail(counts, statistic),
    )
    st.caption("The notebook call makes this picture; the command lists its extremes.")
    call = f"figures.layer_density(search.density(atlas, {statistic!r}), {statistic!r})"
    offer_of(counts, f"layers {statistic}", run, ["top"], call)
    if run.config.get("random", 0) >= layers.needed(run):
        _shares(run)


def _tail(counts: pd.DataFrame, statistic: str) -> str:
    """Where the highest hundredth of all rows is, in words."""
    total = counts.groupby("value")["count"].sum().sort_index(ascending=False).cumsum()
    least = total[total >= total.iloc[-1] / 100].index[0]
    groups = counts.groupby(["layer", "kind"])["count"].sum()
    high = counts[counts["value"] >= least].groupby(["layer", "kind"])["count"].sum()
    shares = (high / groups).dropna()
    (layer, kind), most = shares.idxmax(), shares.max()
    share = total[least] / total.iloc[-1]
    return (
        f"{share:.1%} of all rows have a {statistic} of about {least:.3g} or more. They are most "
        f"frequent in layer {layer}, {kind}: {most:.1%} of its rows."
    )


def _shares(run: Run) -> None:
    shares = above_chance(run)
    most = row_at_most(shares, shares["share"])
    charts(
        "shares",
        figures.shares(shares),
        shows="The share of each layer's vectors whose z is above that of 99 % of random "
        "directions. A layer that spells nothing stands at 1 %. Bars are 95 % intervals.",
        found=f"Most do in layer {most['layer']}, {most['kind']}: {most['share']:.1%}.",
    )
    call = "from interp.neurons.layers import above_chance\nfigures.shares(above_chance(atlas))"
    offer_of(shares, "shares of layers", run, ["layers"], call)
