"""What the pages share: a stored run, tabs, figures, what reproduces a view, errors in place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

import pandas as pd
import streamlit as st
from plotly.graph_objects import Figure
from streamlit.delta_generator import DeltaGenerator
from streamlit.runtime.scriptrunner import StopException

from interp.analyses import label
from interp.apps.address import bound, shared
from interp.apps.take import begun, figure_shown, html, parquet, run_on_page, run_shown, taken
from interp.directions.sets import sae_asks_the_hub
from interp.errors import UserError, readable, reason
from interp.model.catalog import DEFAULT_MODEL, asks_the_hub
from interp.plain_text import printable
from interp.plots import FORMATS, drawn, on_dark, sentences, undrawable
from interp.progress import log
from interp.report import Section
from interp.runs.command import again, command, config_class, settings, shell_line, store_words
from interp.runs.shipped import is_shipped, shipped
from interp.runs.store import Run, Store, open_run
from interp.runs.unfinished import unfinished

if TYPE_CHECKING:
    pass

T = TypeVar("T")


class NoRun(StopException):
    """Ends a tab that has no run to show, or a whole page, as `st.stop` would."""


@contextmanager
def errors_in_place() -> Iterator[None]:
    """Show a user's mistake, what a stored run lacks, or that its tables cannot be shown, where it
    happened; the rest of the page goes on."""
    with begun():
        try:
            yield
        except NoRun:
            pass
        except UserError as error:
            st.error(plain(readable(str(error))))
        except (KeyError, FileNotFoundError) as error:
            fix = "If an earlier version of the workbench made it, give its command with --fresh."
            st.error(plain(f"This run has no {error}. {fix}"))
        except (TypeError, ValueError, IndexError) as error:
            # a run may be anybody's: its tables may hold nothing, or what is no number
            if (run := run_on_page()) is None:
                raise
            log.exception("%s cannot be shown", run.path)
            said = f"{run.path} cannot be shown ({readable(reason(error))})"
            st.error(plain(f"{said}: a part is damaged. {again(run.path, '--fresh')}"))


def in_tabs(
    views: Mapping[str, Callable[..., None]], *args: object, parameter: str = "view"
) -> None:
    """A tab for each view, by its title; only the open one is made, and the URL says which."""
    titles = [plain(title) for title in views]
    place = bound(parameter, titles[0], titles)
    tabs = st.tabs([plain(title) for title in views], key=place, on_change="rerun")
    for tab, view in zip(tabs, views.values(), strict=True):
        if tab.open:
            with tab, errors_in_place():
                view(*args)


def charts(key: str, *figures: Figure, shows: str = "", found: str = "") -> list[DeltaGenerator]:
    """Figures beside each other, each with its own sentences (`plots.said`); returns their columns.

    Args:
        shows: a sentence above all: what is to be seen, and what would be a surprise.
        found: a sentence below all: what was found.
    """
    if shows:
        st.caption(plain(shows))
    columns = st.columns(len(figures))
    for number, (column, figure) in enumerate(zip(columns, figures, strict=True)):
        name, (above, below) = f"{key} {number}", sentences(figure)
        last = found if number == len(figures) - 1 else ""
        figure_shown(figure, "" if number else shows, last)
        with column:
            if above:
                st.caption(plain(above))
            with st.container(key=f"wide {name}") if _many_panels(figure) else nullcontext():
                st.plotly_chart(_themed(figure), key=name)
            if below:
                st.markdown(plain(below))
            with st.popover("Save the figure", type="tertiary", key=f"{name} save"):
                _save(figure, name)
    if found:
        st.markdown(plain(found))
    return columns


def clickable(
    key: str, figure: Figure, pressed: Callable[[Any], None], shows: str = "", found: str = ""
) -> None:
    """A figure whose points answer a click: `pressed` gets the point's `customdata`. The sentences
    are as in `charts`."""

    def selected() -> None:
        points = st.session_state[key]["selection"]["points"]
        if points:
            chosen = points[0]["customdata"]
            pressed(chosen[0] if isinstance(chosen, list) else chosen)

    above, below = sentences(figure)
    figure_shown(figure, shows, found)
    if shows or above:
        st.caption(plain(shows or above))
    st.plotly_chart(_themed(figure), key=key, on_select=selected, selection_mode="points")
    if found or below:
        st.markdown(plain(found or below))
    with st.popover("Save the figure", type="tertiary", key=f"{key} save"):
        _save(figure, key)


def _many_panels(figure: Figure) -> bool:
    """Whether a figure has panels beside each other, which on a telephone would be thumbnails: it
    keeps its width there, and scrolls (look.py)."""
    starts = {axis.domain[0] for axis in figure.select_xaxes() if axis.domain}
    return len(starts) > 2


def _themed(figure: Figure) -> Figure:
    """The figure with colour scales for the page's theme; streamlit sees to its axes and text."""
    return on_dark(figure) if st.context.theme.type == "dark" else figure


def _save(figure: Figure, name: str) -> None:
    """A button for each format; the figure is drawn when one is pressed."""
    if reason := undrawable():
        st.caption(plain(reason))
        return
    for column, kind in zip(st.columns(len(FORMATS)), FORMATS, strict=True):
        column.download_button(
            plain(kind.upper()),
            partial(drawn, figure, kind),
            f"{name.replace(' ', '-')}.{kind}",
            key=f"{name} {kind}",
            on_click="ignore",
        )


def plain(text: object) -> str:
    """Text that Streamlit's markdown shows as it is: no hidden links, pictures or formulas, which a
    browser would fetch or draw. Whatever a page shows of a run, a model or a file goes through here
    where markdown is read: in captions and messages, metrics, tabs, and every widget's label."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|$<>~:&])", r"\\\1", printable(str(text)))


def listed(option: object) -> str:
    """An option of a selectbox, multiselect or select_slider: there Streamlit reads no markdown,
    and escapes would show."""
    return printable(str(option))


def consent(model: str) -> None:
    """Ask before a model that a run names is fetched from the hub, with the user's own token: a run
    may come from anybody."""
    if asks_the_hub(model):
        _asked(model)


def consent_to_sae(source: str) -> None:
    """Ask before a published SAE is fetched that a link, a run or a kept latent names."""
    if sae_asks_the_hub(source):
        _asked(source)


def _asked(name: str) -> None:
    """Ask once a session before something is fetched."""
    granted: set[str] = st.session_state.setdefault(_FETCHED, set())
    if name in granted:
        return
    if not st.toggle(f"Fetch {plain(name)} from the Hugging Face hub", key=f"fetch {name}"):
        st.info("This is named by a run, a link or a kept entry. It is fetched only if you say so.")
        raise NoRun
    granted.add(name)


_FETCHED = "fetched from the hub"
"""What the visitor of the session has agreed to."""


PAGES = "pages by address"
"""Where the session keeps the pages of the navigation."""


def link(address: str, label: str, icon: str | None = None, **params: str) -> None:
    """A link to a page of the app, at these parameters."""
    page = st.session_state.get(PAGES, {}).get(address)
    if page is None:  # a page that runs alone, in a test
        st.markdown(f"[{plain(label)}](/{plain(address)}?{plain(urlencode(params))})")
    else:
        st.page_link(page, label=plain(label), icon=icon, query_params=params)


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
    found += [run for run in shipped(study) if _key(run) not in own]
    runs = {_key(run): run for run in found if fits(run)}
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


def _key(run: Run) -> str:
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
    return {_key(run): _label(run, differ) for run in runs}


def _label(run: Run, differ: list[str]) -> str:
    finished = str(run.manifest["finished"]).replace("T", " ")[5:16]
    model, own = Path(str(run.config.get("model", ""))).name, label(run.study, run.config)
    told = [f"{name} {value}" for name in differ if (value := str(run.config.get(name))) not in own]
    # the key last: streamlit tells options apart by their labels
    when = "shipped" if is_shipped(run) else finished
    parts = [own, model, *(each[:40] for each in told[:3]), when, _key(run)[:8]]
    return " · ".join(filter(None, parts))


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
    rows: pd.DataFrame, name: str, command: list[str], notebook: str, stored: str = ""
) -> None:
    """What the page shows, to take away: its rows, one HTML file with the figures shown since the
    last offer, and the command line and the notebook call that reproduce it; `stored` is the call
    that needs the stored run alone. Each file is made when it is asked for."""
    section = Section(name, rows=rows, command=shell_line(command), notebook=notebook)
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
    offer(rows, name, command, call + shown, stored + shown)


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
    st.download_button(plain(words), made, file, key=f"download {file}", on_click="ignore")


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
