"""The removal page: a concept is turned out of the weights, and what that costs."""

from __future__ import annotations

import streamlit as st

from interp.apps.common import charts, errors_in_place, offer_run, pick_run, plain, table
from interp.neurons import figures


@errors_in_place()
def page() -> None:
    st.title("Remove a concept")
    run = pick_run("neurons.tars")
    config, effects = run.config, table(run, "tars/effects")
    st.caption(
        plain(
            f"{config['model']}: the write vectors closest to the concept's vector (target "
            f"{config['target']}) are turned against it; KL divergence over {config['tokens']} "
            "tokens of ordinary text. Controls of the same layers: neurons that add as much at the "
            "end of the describing text (dashed), and random ones (dotted)."
        )
    )
    concept = st.selectbox("Concept", list(dict.fromkeys(effects["concept"])))
    charts("curves", figures.removal_curves(effects, concept))
    if "unit" in effects:
        st.caption(
            "…_low and …_high are 95 % intervals: of the log probabilities over the prompts, of "
            "the mean KL divergence over the documents. With few of either they are too narrow."
        )
    own = effects[effects["concept"] == concept].drop(columns="concept")
    st.dataframe(own, hide_index=True)
    for title, part in {
        "Prompt by prompt": "prompts",
        "The neurons that were turned": "edits",
        "Mean over all concepts": "means",
        "All concepts together": "cumulative",
    }.items():
        if not run.has(f"tars/{part}"):  # an earlier version's run
            continue
        rows = table(run, f"tars/{part}")
        with st.expander(plain(title)):
            shown = rows[rows["concept"] == concept] if "concept" in rows else rows
            st.dataframe(shown, hide_index=True)
    drawn = f"figures.removal_curves(run.table('tars/effects'), {concept!r})"
    offer_run(effects, "concept removal", run, f"from interp.neurons import figures\n{drawn}")
