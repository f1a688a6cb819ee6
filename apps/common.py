"""What the pages share: a stored run, tabs, figures, what reproduces a view, errors in place."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd
import streamlit as st
from plotly.graph_objects import Figure
from streamlit.delta_generator import DeltaGenerator
from streamlit.runtime.scriptrunner import StopException

from interp.analyses import analyses, label
from interp.errors import UserError, readable
from interp.plots import FORMATS, drawn, undrawable
from interp.runs.store import Run, Store, open_run

if TYPE_CHECKING:
    from interp.model.subject import Subject

T = TypeVar("T")


class NoRun(StopException):
    """Ends a tab that has no run to show, or a whole page, as `st.stop` would."""


@contextmanager
def errors_in_place() -> Iterator[None]:
    """Show a user's mistake, or what a stored run lacks, where it happened; the rest of the page
    goes on."""
    try:
        yield
    except NoRun:
        pass
    except UserError as error:
        st.error(plain(readable(str(error))))
    except (KeyError, FileNotFoundError) as error:
        again = "If an earlier version of the workbench made it, give its command with --fresh."
        st.error(plain(f"This run has no {error}. {again}"))


def in_tabs(views: Mapping[str, Callable[..., None]], *args: object) -> None:
    """A tab for each view, by its title; a mistake in one does not touch the others."""
    for tab, view in zip(st.tabs(list(views)), views.values(), strict=True):
        with tab, errors_in_place():
            view(*args)


def charts(key: str, *figures: Figure) -> list[DeltaGenerator]:
    """Figures beside each other; returns their columns."""
    columns = st.columns(len(figures))
    for number, (column, figure) in enumerate(zip(columns, figures, strict=True)):
        name = f"{key} {number}"
        column.plotly_chart(figure, key=name)
        with column.popover("Save the figure", type="tertiary", key=f"{name} save"):
            _save(figure, name)
    return columns


def _save(figure: Figure, name: str) -> None:
    """A button for each format; the figure is drawn when one is pressed."""
    if reason := undrawable():
        st.caption(plain(reason))
        return
    for column, kind in zip(st.columns(len(FORMATS)), FORMATS, strict=True):
        column.download_button(
            kind.upper(),
            partial(drawn, figure, kind),
            f"{name.replace(' ', '-')}.{kind}",
            key=f"{name} {kind}",
            on_click="ignore",
        )


def plain(text: str) -> str:
    """Text that Streamlit's markdown shows as it is: no links, pictures or formulas from data."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|$<>~:])", r"\\\1", text)


def pick_run(study: str, title: str = "Run", parameter: str = "run") -> Run:
    """The run chosen in the sidebar (or by the URL's parameter); without any, how to make one."""
    runs = {str(run.path): run for run in Store().runs(study)}
    if not runs:
        st.info(f"No run of {study} yet in `{Store().root}`. Make one:")
        st.code(shlex.join(["interp", *study.split(".")]), language="bash")
        raise NoRun
    paths = list(runs)
    wanted = st.query_params.get(parameter, paths[0])
    if wanted not in paths:
        st.warning(plain(f"There is no run {wanted}; this is the newest."))
    index = paths.index(wanted) if wanted in paths else 0
    path = st.sidebar.selectbox(title, paths, index, format_func=lambda p: _label(runs[p]))
    if len(paths) > 1:
        st.query_params[parameter] = path
    return runs[path]


def _label(run: Run) -> str:
    finished = str(run.manifest["finished"]).replace("T", " ")[5:16]
    # the folder's name last: streamlit tells options apart by their labels
    model = Path(run.config.get("model", "")).name
    return " · ".join(filter(None, [model, label(run.study, run.config), finished, run.path.name]))


def offer(rows: pd.DataFrame, name: str, command: list[str], notebook: str) -> None:
    """What the page shows, to take away: its rows, and the command line and the notebook call that
    reproduce it."""
    download(rows, name)
    with st.expander("Reproduce this"):
        st.code(shlex.join(command), language="bash")
        st.code(notebook, language="python")


def offer_run(rows: pd.DataFrame, name: str, run: Run, shown: str = "", **config: Any) -> None:
    """`offer` with what makes the run (`config` beside its own); in a notebook `shown` follows."""
    command, call = study_call(run.study, run.config | config)
    offer(rows, name, command, call + shown)


def study_call(study: str, config: dict[str, Any]) -> tuple[list[str], str]:
    """What makes a study's run: the command, and `run = run_or_load(...)`; defaults left out."""
    kinds = analyses()[study.partition(".")[0]].configs()
    usual = next(kind for kind in kinds if study == kind.STUDY)
    named, positional, call = [], [], []
    for field in fields(usual):
        value = config.get(field.name, field.default)  # an earlier version's run may lack it
        if isinstance(value, list):
            value = tuple(value)
        if value == field.default:
            continue
        call.append(f"{field.name}={value!r}")
        words = list(map(str, value)) if isinstance(value, tuple) else [str(value)]
        option = field.name.replace("_", "-")
        if field.metadata.get("positional"):
            positional += words
        elif isinstance(value, bool):
            named.append(f"--{option}" if value else f"--no-{option}")
        else:
            # a value that looks like an option is joined to its own by "="
            joined = len(words) == 1 and words[0].startswith("-")
            named += [f"--{option}={words[0]}"] if joined else [f"--{option}", *words]
    root, store = Store().root.resolve(), ""
    if root != Path("runs").resolve():  # where a command looks that is not told
        named += ["--runs", str(root)]
        store = f", Store(Path({str(root)!r}))"
    imports = "from pathlib import Path\nfrom interp.runs.store import Store\n" if store else ""
    return ["interp", *study.split("."), *positional, *named], (
        f"{imports}from {usual.__module__} import {usual.__name__}\n"
        "from interp.runs.study import run_or_load\n"
        f"run = run_or_load({usual.__name__}({', '.join(call)}){store})\n"
    )


def download(rows: pd.DataFrame, name: str) -> None:
    st.download_button("Download CSV", rows.to_csv(index=False), f"{name}.csv", "text/csv")


def cached(question: Callable[..., T]) -> Callable[..., T]:
    """Cache a question to a run on disk; a run that is made again is asked again."""

    # streamlit tells cached functions apart by their source, which here is one: so by the name too
    name = f"{question.__module__}.{question.__qualname__}"

    @st.cache_data(show_spinner=False, max_entries=256)
    def ask(name: str, path: str, seal: str, *args: object) -> T:
        return question(open_run(Path(path)), *args)

    def call(run: Run, *args: object) -> T:
        seal = run.manifest.get("seal", run.manifest["finished"])  # the first layout has no seal
        answer: T = ask(name, str(run.path), str(seal), *args)
        return answer

    return call


table = cached(Run.table)
"""`table(run, "scores/table")`: a table of a run, read once."""


@st.cache_resource(show_spinner="opening the model …", max_entries=1)
def opened(model: str) -> tuple[Subject, Lock]:
    """One model in memory, and a lock: an edit applies to whatever runs, so one page runs at a
    time."""
    from interp.model.subject import open_subject

    return open_subject(model), Lock()
