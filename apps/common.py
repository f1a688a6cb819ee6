"""What the pages share: errors in place, tabs, links, consent, questions to a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlencode

import streamlit as st
from streamlit.runtime.scriptrunner import StopException

from interp.apps.address import bound
from interp.apps.take import begun, run_on_page
from interp.apps.words import plain
from interp.directions.sets import sae_asks_the_hub
from interp.errors import UserError, readable, reason
from interp.model.catalog import asks_the_hub
from interp.model.remote_store import is_remote
from interp.progress import log
from interp.runs.command import again
from interp.runs.store import Run, open_run

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
    if not st.toggle(f"Fetch {plain(name + of_the_hub(name))}", key=f"fetch {name}"):
        st.info("This is named by a run, a link or a kept entry. It is fetched only if you say so.")
        raise NoRun
    granted.add(name)


def of_the_hub(name: str) -> str:
    """What a toggle says behind the name of what is fetched; an address says where it is."""
    return "" if is_remote(name) else " from the Hugging Face hub"


_FETCHED = "fetched from the hub"
"""What the visitor of the session has agreed to."""


PAGES = "pages by address"
"""Where the session keeps the pages of the navigation."""


def link(
    address: str, label: str, icon: str | None = None, /, **params: str | Sequence[str]
) -> None:
    """A link to a page of the app, at these parameters, of which some may stand in it more than
    once."""
    page = st.session_state.get(PAGES, {}).get(address)
    if page is None:  # a page that runs alone, in a test
        st.markdown(f"[{plain(label)}](/{plain(address)}?{plain(urlencode(params, doseq=True))})")
    else:
        st.page_link(page, label=plain(label), icon=icon, query_params=params)


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
