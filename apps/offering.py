"""A view to take away: its rows, one HTML file, and what reproduces it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import pandas as pd
import streamlit as st
from streamlit.runtime import get_instance

from interp.apps.common import link
from interp.apps.take import html, parquet, taken
from interp.apps.words import plain
from interp.report import Section
from interp.runs.command import command, config_class, settings, shell_line, store_words
from interp.runs.store import Run, Store


def code(command: list[str]) -> None:
    """A command of `interp`, as it is typed here."""
    st.code(shell_line(command), language="bash")


def make_one(study: str, **config: Any) -> None:
    """How a run comes about that is not there: its command, and a link to the form that is filled
    in with these settings."""
    where = store_words(Store().root)  # without settings its class, and torch, need not be there
    bare = ["interp", *study.split("."), *where]
    code(command(study, config, *where) if config else bare)
    given = {name: _as_text(value) for name, value in config.items()}
    link("new", "Fill it in here", ":material/play_arrow:", study=study, **given)


def _as_text(value: Any) -> str:
    """A setting as the form takes it from a URL."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "\n".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def offer(
    rows: pd.DataFrame,
    name: str,
    command: list[str],
    notebook: str,
    stored: str = "",
    of: str = "",
) -> None:
    """What the page shows, to take away: its rows, one HTML file with the figures shown since the
    last offer, and the command line and the notebook call that reproduce it; `stored` is the call
    that needs the stored run alone. Each file is made when it is asked for.

    Args:
        of: the study or analysis whose rows they are: what their columns mean (`interp.columns`).
    """
    section = Section(name, rows=rows, command=shell_line(command), notebook=notebook, of=of)
    section, runs = taken(section)
    with st.container(horizontal=True, vertical_alignment="center", key=f"take {name}"):
        st.caption("Take this away:", width="content")
        download(rows, name)
        _button("Parquet", partial(parquet, rows), f"{name}.parquet")
        _button("HTML report", partial(html, section, runs), f"{name}.html")
        with st.popover("Reproduce this", key=f"reproduce {name}"):
            code(command)
            st.code(notebook, language="python")
            if stored:
                st.caption("The stored run alone, without its model:")
                st.code(stored, language="python")


def offer_run(rows: pd.DataFrame, name: str, run: Run, shown: str = "", **config: Any) -> None:
    """`offer` with what makes the run (`config` beside its own); in a notebook `shown` follows."""
    command, call = study_call(run.study, run.config | config)
    stored = f"import interp\nrun = interp.open_run({str(run.path.resolve())!r})\n"
    offer(rows, name, command, call + shown, stored + shown, run.study)


def study_call(study: str, config: dict[str, Any]) -> tuple[list[str], str]:
    """What makes a study's run: the command, and `run = run_or_load(...)`; defaults left out."""
    kind = config_class(study)
    call = ", ".join(f"{name}={value!r}" for name, value in settings(kind, config).items())
    where = store_words(Store().root)
    store = f", Store(Path({where[1]!r}))" if where else ""
    imports = "from pathlib import Path\nfrom interp.runs.store import Store\n" if store else ""
    return command(study, config, *where), (
        f"{imports}from {kind.__module__} import {kind.__name__}\n"
        "from interp.runs.study import run_or_load\n"
        f"run = run_or_load({kind.__name__}({call}){store})\n"
    )


def download(rows: pd.DataFrame, name: str) -> None:
    """The rows alone, as CSV."""
    _button("Download CSV", lambda: rows.to_csv(index=False).encode(), f"{name}.csv")


def _button(words: str, made: Callable[[], bytes], file: str) -> None:
    data = partial(held, made, file)
    st.download_button(plain(words), data, file, key=f"download {file}", on_click="ignore")


_TURNS = count()
HELD = 16
"""Files that were made for a click and are still there to be fetched."""


def held(made: Callable[[], bytes], file: str) -> bytes:
    """Make a file when it is clicked on, and hold it. Streamlit lets go of such a file as soon as
    scripts of two other windows end, which may be before this one's browser has fetched it."""
    data = made()
    files = get_instance().media_file_mgr
    place = f"held {next(_TURNS) % HELD}"  # the oldest of them goes
    files.add(data, "application/octet-stream", place, file, is_for_static_download=True)
    return data
