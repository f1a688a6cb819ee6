"""The card of one vector of an atlas, and what the atlas page takes away."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from interp.apps.address import bound
from interp.apps.carry import carry_on
from interp.apps.columns import shown_table
from interp.apps.common import cached, link
from interp.apps.offering import offer
from interp.apps.shown import charts
from interp.apps.words import listed, plain
from interp.model.neuron import NeuronName
from interp.model.vocabulary import visible
from interp.neurons import figures, search
from interp.runs.store import Run

show, values_in_layer = cached(search.show), cached(search.values_in_layer)


def card(run: Run, name: NeuronName) -> None:
    """What one vector spells, how special that is, and where it stands in its layer."""
    rows = show(run, name)
    model = str(run.config["model"])
    title, menu, examples = st.columns([3, 1.2, 1.6], vertical_alignment="bottom")
    title.subheader(plain(name))
    with menu:
        carry_on(str(name), model, "card")
    with examples:
        link(
            "direction", "Texts that it fires on", direction=str(name), model=model, view="examples"
        )
    charts(
        "tokens",
        figures.neuron_tokens(rows),
        shows="The tokens whose logits the vector raises most, and those that its negation does. "
        "One word far ahead of all others would be a surprise.",
        found=" ".join(_first(row) for _, row in rows.iterrows()),
    )
    ranked = ["score", "p", "q", "coherence", "coherence_p", "coherence_q", "norm"]
    shown_table(rows.filter(["side", *ranked]), "card numbers", run.study)
    known = search.statistics(run)
    statistic = st.selectbox(
        "Where it stands by", known, key=bound("standing", known[0], known), format_func=listed
    )
    here = dict(zip(rows["side"], rows[statistic], strict=True))
    values, among = values_in_layer(run, name, statistic), f"layer {name.layer}, {name.kind}"
    charts(
        "standing",
        figures.standing(values, here, statistic, among),
        shows=f"The {statistic} of all {len(values):,} rows of {among}, with this vector's two. "
        "A line far to the right of the heap would be a surprise.",
    )
    call = f"figures.neuron_tokens(search.show(atlas, {str(name)!r}))"
    offer_of(rows, f"neuron {name}", run, ["show", str(name)], call)


def _first(row: pd.Series) -> str:
    """What one side spells, in words."""
    if pd.isna(row["score"]):
        return f"{row['side']}: the vector is zero and spells nothing."
    chance = f", q {row['q']:.2g}" if "q" in row else ""
    word = visible(row["tokens"][0])
    parts = ""  # the figure below shows z or the lead alone, where one of them is chosen
    if "z" in row and "margin" in row:
        parts = f" (z {row['z']:.2f} + lead {row['margin']:.2f})"
    return (
        f"{row['side']}: '{word}' comes first, with a score of {row['score']:.2f}{parts}{chance}."
    )


def offer_of(rows: pd.DataFrame, name: str, run: Run, command: list[str], call: str) -> None:
    """`offer` for a view of an atlas."""
    opened = (
        "from pathlib import Path\nfrom interp.neurons import figures, search\n"
        f"atlas = search.open_atlas(Path({str(run.path)!r}))\n"
    )
    words = ["interp", "neurons", *command, "--atlas", str(run.path)]
    offer(rows, name, words, opened + call, of=run.study)
