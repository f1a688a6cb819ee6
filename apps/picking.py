"""Which model and which run a page is about: chosen once, for all pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import streamlit as st

from interp.analyses import label
from interp.apps.address import bound, shared
from interp.apps.common import NoRun
from interp.apps.offering import make_one
from interp.apps.take import run_shown
from interp.apps.words import plain
from interp.errors import UserError, readable
from interp.model.catalog import DEFAULT_MODEL
from interp.plain_text import printable
from interp.runs.shipped import is_shipped, shipped
from interp.runs.store import Run, Store
from interp.runs.unfinished import unfinished


def pick_run(
    study: str,
    title: str = "Run",
    parameter: str = "run",
    fits: Callable[[Run], bool] = lambda run: True,
    first: str = "",
) -> Run:
    """The run chosen in the sidebar; without any, how to make one. What ships comes after the
    store's own.

    The URL's parameter is the run's key. Without it the run is the one chosen last in this visit,
    else the newest of the chosen model, else the newest.

    Args:
        fits: whether a run has what the page shows.
        first: the key of the one to begin with, instead of the newest of the chosen model.
    """
    store = Store()
    found, complaints = store.looked_through(study)
    left_out(complaints, unfinished(store.root, study))
    own = {run.path.name for run in found}
    found += [run for run in shipped(study) if run_key(run) not in own]
    runs = {run_key(run): run for run in found if fits(run)}
    if not runs:
        st.info(f"No finished run of {plain(study)} yet in {plain(store.root)}. Make one:")
        make_one(study)
        raise NoRun
    wanted = st.query_params.get(parameter)
    if wanted and wanted not in runs:
        st.warning(plain(f"There is no run {wanted} here; this is another."))
    usual = _usual_run(runs, f"{study} {parameter}", first)
    labels, place = _labels(list(runs.values())), bound(parameter, usual, runs, always=True)
    if st.session_state.get(_OTHER_MODEL):
        st.session_state[place] = usual
    key = st.sidebar.selectbox(
        plain(title), list(runs), key=place, format_func=lambda key: labels.get(key, key)
    )
    if key not in runs:  # a browser can send any text
        raise UserError(f"there is no run {key} of {study} here: choose one of the list")
    st.sidebar.caption(plain(labels[key]))  # the box cuts what is longer than it
    st.session_state.setdefault(_CHOSEN, {})[f"{study} {parameter}"] = key
    run_shown(runs[key])
    if is_shipped(runs[key]):
        about = runs[key].manifest.get("shipped", "")
        st.caption(plain(f"This run ships with the workbench. {about}"))
    return runs[key]


def run_key(run: Run) -> str:
    """What the URL calls a run: the name of its folder, which is its key in a store."""
    return str(run.manifest["key"]) if is_shipped(run) else run.path.name


_CHOSEN, _OTHER_MODEL, _MODEL = "runs chosen", "another model", "chosen model"


def _usual_run(runs: Mapping[str, Run], chooser: str, first: str) -> str:
    """The key of the run to show where the URL names none."""
    before = st.session_state.get(_CHOSEN, {}).get(chooser)
    own = [key for key, run in runs.items() if run.config.get("model") == chosen_model()]
    return str(before) if before in runs else first or next(iter(own or runs))


def chosen_model() -> str:
    """The model chosen for all pages, in the sidebar."""
    return str(st.session_state.get(_MODEL) or DEFAULT_MODEL)


def choose(model: str) -> None:
    """Choose another model for all pages; for a widget's `on_change`."""
    st.session_state[_MODEL] = model or DEFAULT_MODEL
    _forget_runs()


def choose_model(arrived: bool) -> None:
    """The sidebar's list of models: those of stored runs, the usual one, or one that is typed in.
    On arrival the URL's `model` counts."""
    state = st.session_state
    if arrived and "model" in st.query_params:
        state[_MODEL] = st.query_params["model"]
    state.setdefault(_MODEL, DEFAULT_MODEL)
    shared("model", _MODEL)
    stored = [str(run.config.get("model") or "") for run in Store().looked_through()[0]]
    known = dict.fromkeys(filter(None, [DEFAULT_MODEL, *stored, state[_MODEL]]))
    st.sidebar.selectbox(
        "Model",
        list(known),
        key=_MODEL,
        accept_new_options=True,
        format_func=lambda name: printable(Path(name).name),
        on_change=_forget_runs,
        help="For all pages: its runs come first, and it is what runs. Type another's name, "
        "folder or hub id.",
    )


def _forget_runs() -> None:
    st.session_state[_CHOSEN], st.session_state[_OTHER_MODEL] = {}, True


def model_shown() -> None:
    """After a page: its runs are those of the chosen model."""
    st.session_state[_OTHER_MODEL] = False


def left_out(complaints: list[str], begun: list[str]) -> None:
    """Say which runs are not shown, being damaged or not finished."""
    for complaint in complaints:
        st.warning(plain(f"Passed over: {readable(complaint)}"))
    for line in begun:
        st.info(plain(readable(line)))


def _labels(runs: list[Run]) -> dict[str, str]:
    """What tells the runs of one study apart, by their keys: first what differs between them."""
    configs = [run.config for run in runs]
    names = dict.fromkeys(name for config in configs for name in config)
    differ = [
        name
        for name in names
        if name not in ("model", "device") and len({str(c.get(name)) for c in configs}) > 1
    ]
    return {run_key(run): _label(run, differ) for run in runs}


def _label(run: Run, differ: list[str]) -> str:
    finished = str(run.manifest["finished"]).replace("T", " ")[5:16]
    model, own = Path(str(run.config.get("model", ""))).name, label(run.study, run.config)
    told = [f"{name} {value}" for name in differ if (value := str(run.config.get(name))) not in own]
    # the key last: streamlit tells options apart by their labels
    when = "shipped" if is_shipped(run) else finished
    parts = [own, model, *(each[:40] for each in told[:3]), when, run_key(run)[:8]]
    return " · ".join(filter(None, parts))
