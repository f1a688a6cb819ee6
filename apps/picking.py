"""Which model and which run a page is about: chosen once, for all pages."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import streamlit as st

from interp.analyses import label, place
from interp.apps.address import bound, go, here, shared
from interp.apps.common import NoRun, link
from interp.apps.offering import make_one
from interp.apps.take import run_shown
from interp.apps.words import called, placed, plain
from interp.columns import column
from interp.errors import UserError, readable
from interp.model.catalog import DEFAULT_MODEL
from interp.runs.manifest import KEY
from interp.runs.shipped import is_shipped, shipped, shipped_runs
from interp.runs.store import Run, Store
from interp.runs.unfinished import unfinished


def pick_run(
    study: str,
    title: str = "Run",
    parameter: str = "run",
    fits: Callable[[Run], bool] = lambda run: True,
    first: str = "",
    lacks: str = "",
) -> Run:
    """The run chosen in the sidebar; without any, how to make one. What ships comes after the
    store's own.

    The URL's parameter is the run's key. Without it the run is the one chosen last in this visit,
    else the newest of the chosen model, else the newest.

    Args:
        fits: whether a run has what the page shows.
        lacks: what it has not, where it does not fit: "the probes".
        first: the key of the one to begin with, instead of the newest of the chosen model.
    """
    store = Store()
    found, complaints = store.looked_through(study)
    left_out(complaints, unfinished(store.root, study))
    own = {run.path.name for run in found}
    found += [run for run in shipped(study) if run_key(run) not in own]
    runs = {run_key(run): run for run in found if fits(run)}
    if not runs:
        none = f"No finished run of {study} yet in {store.root}."
        st.info(plain(f"{_unfit(study, found, lacks) or none} Make one:"))
        make_one(study)
        raise NoRun
    wanted = st.query_params.get(parameter)
    _follow(parameter, runs)
    if wanted and wanted not in runs:
        st.warning(plain(f"There is no run {wanted} here; this is another."))
    usual = _usual_run(runs, f"{study} {parameter}", first)
    labels = _labels(list(runs.values()))
    said = st.session_state.setdefault(_SAID, {})
    said |= {label: key for key, label in labels.items()}
    place = bound(parameter, usual, runs, always=True, said=said)
    if st.session_state.get(_OTHER_MODEL):
        st.session_state[place] = usual
    key = st.sidebar.selectbox(plain(title), list(runs), key=place, format_func=called(labels))
    if key not in runs:  # a browser can send any text
        raise UserError(f"there is no run {key} of {study} here: choose one of the list")
    st.sidebar.caption(plain(labels[key]))  # the box cuts what is longer than it
    model = st.query_params.get("model")
    if model and not wanted and model not in {run.config.get("model") for run in runs.values()}:
        st.info(plain(f"No run of {model} is here; this is of {runs[key].config.get('model')}."))
    st.session_state.setdefault(_CHOSEN, {})[f"{study} {parameter}"] = key
    run_shown(runs[key])
    if is_shipped(runs[key]):
        about = runs[key].manifest.get("shipped", "")
        st.caption(plain(f"This run ships with the workbench. {about}"))
    return runs[key]


def _unfit(study: str, found: list[Run], lacks: str) -> str:
    """What the runs that are there have not; "" without any."""
    if not (found and lacks):
        return ""
    many, ships = len(found) > 1, all(map(is_shipped, found))
    count = f"{len(found):,} runs of {study} are" if many else f"A run of {study} is"
    where = "here, and ships with the workbench," if ships and not many else "here,"
    return f"{count} {where} but without {lacks}, which this page needs."


def _follow(parameter: str, known: Collection[str]) -> None:
    """Go where a run is shown that the URL names: it may be of another study of this page, or be
    given as `run` where the page calls it otherwise."""
    for name in (parameter, "run"):
        key = st.query_params.get(name, "")
        if not KEY.fullmatch(key) or (name == parameter and key in known):
            continue
        for run in [*Store().looked_through()[0], *shipped_runs()]:
            shown = place(run.study, key) if run_key(run) == key else None
            if shown is None:
                continue
            address, params = shown
            if address == here() and name not in params:
                go({name, "view"} - set(params), **params)
            if address != here() and name == parameter:
                st.info(plain(f"The run {key} is one of {run.study}, which another page shows."))
                link(address, "Open it there", **params)


def run_key(run: Run) -> str:
    """What the URL calls a run: the name of its folder, which is its key in a store."""
    return str(run.manifest["key"]) if is_shipped(run) else run.path.name


_CHOSEN, _OTHER_MODEL, _MODEL = "runs chosen", "another model", "chosen model"
_SAID = "runs by their labels"
"""Of this visit, since a run's label says what tells it from the runs that are there."""


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
        format_func=placed,
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
    told = [_told(run, name) for name in differ if str(run.config.get(name)) not in own]
    # the key last: streamlit tells options apart by their labels
    when = "shipped" if is_shipped(run) else finished
    said = [each[:40] for each in told if each]
    return " · ".join(filter(None, [own, model, *said[:3], when, run_key(run)[:8]]))


def _told(run: Run, name: str) -> str:
    """A setting in words; "" of a switch that is off and of what was left as usual."""
    value, words = run.config.get(name), column(name, run.study).words
    if value is None or value is False or value in ("", []):
        return ""
    return words if value is True else f"{words} {value}"
