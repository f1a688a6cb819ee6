"""The lens page: what a prompt's stream says after every layer, how good a lens is, how sure."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from interp.apps import pool
from interp.apps.address import bound
from interp.apps.columns import shown_table
from interp.apps.common import consent, errors_in_place, in_tabs, table
from interp.apps.offering import code, offer_run, study_call
from interp.apps.picking import pick_run
from interp.apps.shown import charts
from interp.apps.words import called, listed, placed, plain
from interp.directions.tokens import TokenDirectionsConfig
from interp.errors import UserError
from interp.lens import figures
from interp.lens.compare import LensCompareConfig
from interp.lens.fit import FitConfig
from interp.lens.grid import ShowConfig
from interp.lens.told import told_of
from interp.lens.tune import TuneConfig
from interp.model.catalog import DEFAULT_MODEL
from interp.model.vocabulary import visible
from interp.runs.store import Run, Store
from interp.runs.study import run_or_load


@errors_in_place()
def page() -> None:
    st.title("Lenses")
    st.caption(
        "The stream after each layer, read through the model's own final norm and LM head: as it "
        "is (the logit lens), or carried to the last layer first (a tuned or a Jacobian lens)."
    )
    in_tabs({"A prompt": _prompt, "Compared": _compared, "Jacobian": _fits, "Tuned": _tuned})


def _prompt() -> None:
    run = _asked() or pick_run(ShowConfig.STUDY, "A prompt", "prompt")
    cells = table(run, "cells")
    shade = st.selectbox(
        "Colour by",
        list(figures.SHADES),
        format_func=called(figures.SHADES),
        key=bound("colour", "p", figures.SHADES),
    )
    st.caption(plain(f"{run.config['model']}. {told_of(run)}"))
    charts("grid", figures.grid(cells, shade))
    tokens = cells.drop_duplicates("position")
    names = dict(zip(tokens["position"], tokens["token"], strict=True))
    chosen = st.selectbox(
        "One token, layer by layer",
        list(names),
        format_func=lambda at: listed(f"{at} {visible(names[at])}"),
        key=bound("position", int(max(names)), names),
    )
    column = cells[cells["position"] == chosen].sort_values("layer", ascending=False)
    charts("column", figures.column(column, "entropy"), figures.column(column, "kl"))
    with errors_in_place():
        _keep(run, column)
    offer_run(cells, "cells", run)


def _lenses() -> list[str]:
    """Those by name, and the stored fits."""
    fits = [str(run.path) for kind in (FitConfig, TuneConfig) for run in Store().runs(kind.STUDY)]
    return ["final", "tuned", "jacobian", *fits]


def _known(lens: str) -> str:
    """A lens of `_lenses`: a browser can send any text, and a run may be anybody's."""
    if lens not in _lenses():
        raise UserError(f"'{lens}' is no lens of a stored run: choose one of the list")
    return lens


def _asked() -> Run | None:
    """The run of a prompt that is typed in, made if it is not stored."""
    with st.expander("Read another prompt"), st.form("ask", border=False):
        prompt = st.text_input("Prompt", placeholder="The keys to the cabinet", key="typed")
        left, right = st.columns(2)
        model = left.text_input("Model", DEFAULT_MODEL, key="model")
        lens = right.selectbox("Lens", _lenses(), format_func=placed, key="lens")
        pressed = st.form_submit_button("Read")
    if not (pressed and prompt):
        return None
    with errors_in_place(), st.spinner("reading …"):
        return pool.run(ShowConfig(model.strip(), prompt=prompt, lens=_known(lens)))
    return None


def _keep(run: Run, column: pd.DataFrame) -> None:
    """A cell of one position: its tokens, and the direction of one of them to keep."""
    cells = column.reset_index(drop=True)
    st.caption("Select a cell's row to keep the direction of one of its tokens at that layer.")
    event = shown_table(
        cells[["layer", "p", "entropy", "kl", "tops"]],
        f"cells {run.path} {cells['position'].iloc[0]}",
        run.study,
        on_select="rerun",
        selection_mode="single-row",
    )
    if not (picked := _picked(event)):
        return
    cell = cells.iloc[picked[0]]
    token = st.selectbox(
        "Token", list(cell["tops"]), format_func=lambda t: listed(visible(t)), key="kept token"
    )
    about = {
        "model": run.config["model"],
        "layer": int(cell["layer"]),
        "tokens": (token,),
        "lens": run.config["lens"],
    }
    code(study_call(TokenDirectionsConfig.STUDY, about)[0])
    if st.button("Keep the direction", key="keep"):
        consent(run.config["model"])
        with st.spinner("reading the unembedding …"):
            made = run_or_load(TokenDirectionsConfig(**{**about, "lens": _known(about["lens"])}))
        st.success(plain(f"{made.path / 'directions'} is on the pages Directions and Steer."))


def _picked(event: Any) -> list[int]:
    """The rows that are selected in a table."""
    return list(event["selection"]["rows"])


def _compared() -> None:
    run = pick_run(LensCompareConfig.STUDY, "Compared", "comparison")
    layers, config = table(run, "layers"), run.config
    st.caption(
        plain(
            f"{config['model']}: {config['documents']} documents behind the first "
            f"{config['after']}, {config['positions']} positions of each."
        )
    )
    measure = st.selectbox(
        "Measure",
        list(figures.MEASURES),
        format_func=called(figures.MEASURES),
        key=bound("measure", "kl", figures.MEASURES),
    )
    charts("compared", figures.compared(layers, measure))
    shown_table(layers, "compared", run.study)
    offer_run(layers, "lenses", run)


def _fits() -> None:
    run = pick_run(FitConfig.STUDY, "Jacobian", "fit")
    layers = table(run, "layers")
    st.caption(
        plain(
            f"{run.config['model']}: {run.config['prompts']} passages of {run.config['length']} "
            f"tokens. Cosine of the two halves' maps: {layers['agreement'].min():.2f} at least, "
            f"{layers['agreement'].mean():.2f} on average."
        )
    )
    charts("agreement", figures.agreement(layers))
    shown_table(layers, "fitted", "lens.fit")
    offer_run(layers, "layers", run)


def _tuned() -> None:
    run = pick_run(TuneConfig.STUDY, "Tuned", "training")
    layers = table(run, "layers")
    st.caption(
        plain(
            f"{run.config['model']}: {run.config['prompts']} passages. KL of the model's "
            f"distribution from the lens' on {run.config['held_out']} held-out passages, mean over "
            f"layers: {layers['kl'].mean():.2f} nats, from the logit lens' "
            f"{layers['logit_kl'].mean():.2f}."
        )
    )
    charts("tuned", figures.before_and_after(layers), figures.training(table(run, "curve")))
    shown_table(layers, "tuned", run.study)
    offer_run(layers, "layers", run)
