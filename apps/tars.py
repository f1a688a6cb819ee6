"""The removal page: a concept is turned out of the weights, and what that costs."""

from __future__ import annotations

import streamlit as st

from interp.apps.common import (
    download,
    errors_in_place,
    pick_run,
    plain,
    reproduce,
    study_call,
    table,
)
from interp.neurons import figures
from interp.neurons.tars import TarsConfig
from interp.runs.store import Run


def page() -> None:
    st.title("Remove a concept")
    run = pick_run("neurons.tars", "interp neurons tars")
    with errors_in_place():
        _removal(run)


def _removal(run: Run) -> None:
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
    figure = figures.removal_curves(effects, concept)
    st.plotly_chart(figure, width="stretch", key="curves")
    own = effects[effects["concept"] == concept].drop(columns="concept")
    st.dataframe(own, hide_index=True, width="stretch")
    download(effects, "concept removal")
    with st.expander("Prompt by prompt"):
        prompts = table(run, "tars/prompts")
        st.dataframe(prompts[prompts["concept"] == concept], hide_index=True, width="stretch")
    with st.expander("The neurons that were turned"):
        turned = table(run, "tars/edits")
        st.dataframe(turned[turned["concept"] == concept], hide_index=True, width="stretch")
    with st.expander("All concepts together"):
        st.dataframe(table(run, "tars/cumulative"), hide_index=True, width="stretch")
    command, made = study_call(["interp", "neurons", "tars"], config, TarsConfig())
    drawn = f"figures.removal_curves(run.table('tars/effects'), {concept!r})"
    reproduce(command, f"from interp.neurons import figures\n{made}{drawn}")
