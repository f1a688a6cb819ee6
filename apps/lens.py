"""The lens page: what a prompt's stream says after every layer, and how sure a fit is."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from interp.apps.common import charts, errors_in_place, in_tabs, offer_run, pick_run, plain, table
from interp.lens import figures
from interp.lens.fit import FitConfig
from interp.lens.grid import ShowConfig
from interp.model.catalog import DEFAULT_MODEL
from interp.runs.store import Run, Store
from interp.runs.study import run_or_load


def page() -> None:
    st.title("Lenses")
    st.caption(
        "The stream after each layer, read through the model's own final norm and LM head: as it "
        "is (the logit lens), or carried to the last layer first (a fitted lens)."
    )
    in_tabs({"A prompt": _prompt, "Fits": _fits})


def _prompt() -> None:
    made = _asked()
    run = made or pick_run(ShowConfig.STUDY, "Prompt", "prompt")
    cells = table(run, "cells")
    shade = st.radio(
        "Colour by", list(figures.SHADES), format_func=figures.SHADES.get, horizontal=True
    )
    st.caption(f"{plain(run.config['model'])}, lens {plain(run.config['lens'])}.")
    charts("grid", figures.grid(cells, shade))
    tokens = cells.drop_duplicates("position")
    names = dict(zip(tokens["position"], tokens["token"], strict=True))
    chosen = st.selectbox(
        "One token, layer by layer",
        list(names),
        len(names) - 1,
        format_func=lambda at: f"{at} {names[at]!r}",
    )
    column = cells[cells["position"] == chosen]
    charts("column", figures.column(column, "entropy"), figures.column(column, "kl"))
    offer_run(cells, "cells", run)


def _asked() -> Run | None:
    """The run of a prompt that is typed in, made if it is not stored."""
    fits = {str(run.path): run for run in Store().runs(FitConfig.STUDY)}
    with st.form("ask"):
        prompt = st.text_input("Prompt", placeholder="The keys to the cabinet")
        left, right = st.columns(2)
        model = left.text_input("Model", DEFAULT_MODEL)
        lens = right.selectbox("Lens", ["final", *fits])
        pressed = st.form_submit_button("Read")
    if not (pressed and prompt):
        return None
    with errors_in_place(), st.spinner("reading …"):
        return run_or_load(replace(ShowConfig(), prompt=prompt, model=model.strip(), lens=lens))
    return None


def _fits() -> None:
    run = pick_run(FitConfig.STUDY, "Fit", "fit")
    layers = table(run, "layers")
    st.caption(
        f"{plain(run.config['model'])}: {run.config['prompts']} passages of {run.config['length']} "
        f"tokens. Agreement of the two halves: {layers['agreement'].min():.2f} at least, "
        f"{layers['agreement'].mean():.2f} on average."
    )
    charts("agreement", figures.agreement(layers))
    st.dataframe(layers, hide_index=True)
    offer_run(layers, "layers", run)
