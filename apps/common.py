"""What the pages share: picking a stored run, showing how to reproduce a view, errors in place."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import streamlit as st

from interp.analyses import label
from interp.errors import UserError
from interp.runs.store import Run, Store, open_run
from interp.runs.study import Study

T = TypeVar("T")


@contextmanager
def errors_in_place() -> Iterator[None]:
    """Show a user's mistake, or what a stored run lacks, where it happened; the rest of the page
    goes on."""
    try:
        yield
    except UserError as error:
        st.error(plain(str(error)))
    except (KeyError, FileNotFoundError) as error:
        st.error(
            plain(
                f"This run has no {error}. If an earlier version of the workbench made it, give "
                "its command again."
            )
        )


def plain(text: str) -> str:
    """Text that Streamlit's markdown shows as it is: no links, pictures or formulas from data."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|$<>~:])", r"\\\1", text)


def pick_run(study: str, make: str = "", title: str = "Run", parameter: str = "run") -> Run:
    """The run chosen in the sidebar (or by the URL's parameter); without any, how to make one.

    `make` is the command that makes one; by default the study's, `interp neurons clamp`.
    """
    runs = Store().runs(study)
    if not runs:
        st.info(f"No run of {study} in `{Store().root}` yet. Make one:")
        st.code(make or f"interp {study.replace('.', ' ')}", language="bash")
        st.stop()
    paths = [str(run.path) for run in runs]
    labels = {str(run.path): _label(run) for run in runs}
    wanted = st.query_params.get(parameter, paths[0])
    if wanted not in paths:
        st.warning(plain(f"There is no run {wanted}; this is the newest."))
    index = paths.index(wanted) if wanted in paths else 0
    path = st.sidebar.selectbox(title, paths, index, format_func=lambda p: labels[p])
    if len(paths) > 1:
        st.query_params[parameter] = path
    return next(run for run in runs if str(run.path) == path)


def _label(run: Run) -> str:
    finished = str(run.manifest["finished"]).replace("T", " ")[5:16]
    # the folder's name last: streamlit tells options apart by their labels
    model = Path(run.config.get("model", "")).name
    parts = (model, label(run.study, run.config), finished, run.path.name)
    return " · ".join(part for part in parts if part)


def reproduce(command: list[str], notebook: str) -> None:
    """The command line and the notebook call behind what the page shows."""
    with st.expander("Reproduce this"):
        st.code(shlex.join(command), language="bash")
        st.code(notebook, language="python")


def study_call(
    command: list[str], config: dict[str, Any], usual: Study, positional: str = ""
) -> tuple[list[str], str]:
    """What makes a study's run: the command, and `run = run_or_load(...)`; defaults left out.

    `positional` names the field that the command takes without an option.
    """
    kind, asked, call = type(usual), list(command), []
    for name, value in config.items():
        if name not in usual.__dataclass_fields__:  # of an earlier version's run
            continue
        usually = getattr(usual, name)
        each = list(value) if isinstance(value, list) else [value]
        if each == (list(usually) if isinstance(usually, tuple) else [usually]):
            continue
        option = [] if name == positional else [f"--{name.replace('_', '-')}"]
        place = len(command) if name == positional else len(asked)
        asked[place:place] = [*option, *map(str, each)]
        call.append(f"{name}={(tuple(value) if isinstance(value, list) else value)!r}")
    return asked, (
        f"from {kind.__module__} import {kind.__name__}\n"
        "from interp.runs.study import run_or_load\n"
        f"run = run_or_load({kind.__name__}({', '.join(call)}))\n"
    )


def download(rows: pd.DataFrame, name: str) -> None:
    st.download_button("Download CSV", rows.to_csv(index=False), f"{name}.csv", "text/csv")


def cached(question: Callable[..., T]) -> Callable[..., T]:
    """Cache a question to a run on disk; a run that is made again is asked again."""

    # streamlit tells cached functions apart by their source, which here is one: so by the name too
    name = f"{question.__module__}.{question.__qualname__}"

    @st.cache_data(show_spinner=False, max_entries=256)
    def ask(name: str, path: str, finished: str, *args: object) -> T:
        return question(open_run(Path(path)), *args)

    def call(run: Run, *args: object) -> T:
        answer: T = ask(name, str(run.path), run.manifest["finished"], *args)
        return answer

    return call


def _table(run: Run, name: str) -> pd.DataFrame:
    return run.table(name)


table = cached(_table)
"""`table(run, "scores/table")`: a table of a run, read once."""
