"""The removal page: a concept is turned out of the weights, and what that costs."""

from __future__ import annotations

import streamlit as st

from interp.apps.address import bound
from interp.apps.columns import shown_table
from interp.apps.common import errors_in_place, table
from interp.apps.offering import offer_run
from interp.apps.picking import pick_run
from interp.apps.shown import charts
from interp.apps.words import listed, plain
from interp.neurons import figures

PARTS = {
    "Prompt by prompt": "prompts",
    "The neurons that were turned": "edits",
    "Mean over all concepts": "means",
    "All concepts together": "cumulative",
}
"""More tables of a run, by what they are."""


@errors_in_place()
def page() -> None:
    st.title("Remove a concept")
    run = pick_run("neurons.tars")
    config, effects = run.config, table(run, "tars/effects")
    st.caption(
        plain(
            f"{config['model']}: the write vectors closest to the concept's vector (target "
            f"{config['target']}) are turned against it; KL divergence over {config['tokens']:,} "
            "tokens of ordinary text. Controls of the same layers: neurons that add as much at the "
            "end of the describing text (matched, dashed), and random ones (dotted)."
        )
    )
    concepts = list(dict.fromkeys(effects["concept"]))
    place = bound("concept", concepts[0] if concepts else "", concepts)
    concept = st.selectbox("Concept", concepts, key=place, format_func=listed)
    own = effects[effects["concept"] == concept]
    if own.empty:
        st.info("This run removed no concept.")
        return
    charts("curves", figures.removal_curves(effects, str(concept)))
    st.caption(
        "Log probability and probability are means over the same prompts and may part ways: the "
        "mean of logs counts a fall from 1e-6 to 1e-9 as much as one from 0.1 to 0.0001, the mean "
        "probability is of the prompts where the word is likely."
    )
    if "unit" in effects:
        st.caption(
            "Intervals are 95 %: of the log probabilities over the prompts, of the mean KL over "
            "the documents. With few of either they are too narrow."
        )
    shown_table(own.drop(columns="concept"), "effects", run.study)
    for title, part in PARTS.items():
        if not run.has(f"tars/{part}"):  # an earlier version's run
            continue
        rows = table(run, f"tars/{part}")
        with st.expander(plain(title)):
            mine = rows[rows["concept"] == concept] if "concept" in rows else rows
            shown_table(mine, part, run.study)
    drawn = f"figures.removal_curves(run.table('tars/effects'), {concept!r})"
    offer_run(effects, "concept removal", run, f"from interp.neurons import figures\n{drawn}")
