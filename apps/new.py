"""The page that starts a study: a form made from its config class, what it will take, the command,
and a button that puts it in the queue."""

from __future__ import annotations

from typing import Any

import streamlit as st

from interp.analyses import place
from interp.apps.address import begin_anew, bound
from interp.apps.common import PAGES, consent, consent_to_sae, errors_in_place, link
from interp.apps.form import config_kind, filled_in, studies
from interp.apps.offering import code
from interp.apps.words import called, plain
from interp.errors import UserError, readable
from interp.runs import queue
from interp.runs.command import command, store_words
from interp.runs.estimate import estimate, parameters_of
from interp.runs.jobs import active, check_words
from interp.runs.manifest import JOURNAL
from interp.runs.store import Store, usual_store
from interp.runs.study import plan

KEPT = "new: checked"
"""What was found of the last settings, so that a look at the page does not check them again."""


@errors_in_place()
def page() -> None:
    st.title("New study")
    names = list(studies())
    study = st.selectbox(
        "Study",
        names,
        key=bound("study", names[0], read=_known, always=True),
        format_func=called({name: f"{name}: {about}" for name, (_, about) in studies().items()}),
        on_change=_another,
    )
    if study is None:
        named = st.query_params.get("study", "")
        raise UserError(f"there is no study '{named[:80]}': choose one of the list")
    kind = config_kind(str(study))
    st.caption(plain(studies()[kind.STUDY][1]))
    with errors_in_place():
        config = filled_in(kind)
        _ready(config)


def _known(text: str) -> str | None:
    """A study of the list; no other stands in for one that an address gets wrong."""
    return text if text in studies() else None


def _another() -> None:
    """Another study has other settings: those of the last one are forgotten."""
    begin_anew("study", "model")


def _ready(config: Any) -> None:
    """What comes of the settings, and the button that starts them."""
    values = {name: getattr(config, name) for name in config.__dataclass_fields__}
    words = command(config.STUDY, values)
    check_words(tuple(words[1:]))  # before its model is opened: code that a link names never runs
    if values.get("model"):
        consent(str(values["model"]))
    for name in _saes(values):
        consent_to_sae(name)
    root = Store().root
    code([*words, *store_words(root)])
    key, problem, took = _checked(config, words)
    if problem:
        st.error(plain(readable(problem)))
        return
    st.caption(plain(took))
    run = root / config.STUDY / key
    finished = (run / "manifest.json").exists()
    if finished:
        st.success("This run is there already.", icon=":material/check_circle:")
        if shown := place(config.STUDY, key):
            link(shown[0], "Open the run", ":material/open_in_new:", **shown[1])
        return
    if (run / JOURNAL).exists():
        st.info("This run was begun and is not finished: to start it resumes it.")
    if any(job.words == tuple(words[1:]) for job in active(root)):
        st.info("It is in the queue.")
        link("jobs", "Watch it", ":material/pending_actions:")
    elif st.button("Start", type="primary", icon=":material/play_arrow:", key="new: start"):
        st.session_state.pop(KEPT, None)
        _start(config, words)


def _saes(values: dict[str, Any]) -> list[str]:
    """The SAEs that the settings name."""
    given = (values.get(name) or () for name in ("saes", "sae"))
    return [text for value in given for text in ([value] if isinstance(value, str) else value)]


def _start(config: Any, words: list[str]) -> None:
    """Check once more, put it in the queue, and go where it is watched."""
    if problem := _checked(config, words)[1]:
        raise UserError(problem)
    queue.start(Store().root, tuple(words[1:]))
    st.session_state.pop(KEPT, None)
    if jobs := st.session_state.get(PAGES, {}).get("jobs"):
        st.switch_page(jobs)
    st.rerun()


def _checked(config: Any, words: list[str]) -> tuple[str, str, str]:
    """The key of a config's run, what is wrong with it, and what it will take."""
    kept = st.session_state.get(KEPT)
    if kept and kept[0] == words:
        return tuple(kept[1])  # type: ignore[return-value]
    store, found = Store(), ("", "", "")
    with st.spinner("checking the settings …"):
        try:
            with usual_store(store.root):
                config.check()
                key = str(plan(config)["key"])
            found = (
                key,
                "",
                estimate(config, store.looked_through(config.STUDY)[0], _size(config)),
            )
        except UserError as error:
            found = ("", str(error), "")
    st.session_state[KEPT] = (words, found)
    return found


def _size(config: Any) -> int:
    """The number of parameters of a config's model; 0 where they are not known."""
    weights = getattr(config, "stored_weights", None)
    return parameters_of(weights.folder) if weights else 0
