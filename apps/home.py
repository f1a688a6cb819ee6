"""The start page: what one wants to know, the latest results as pictures, and everything stored."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd
import streamlit as st
from plotly.graph_objects import Figure
from streamlit.delta_generator import DeltaGenerator

from interp.analyses import label, place
from interp.apps.common import PAGES, cached, errors_in_place, link
from interp.apps.offering import code, make_one
from interp.apps.picking import chosen_model, left_out, run_key
from interp.apps.shown import charts
from interp.apps.words import plain
from interp.plots import many_panels
from interp.progress import in_words
from interp.report.of_run import figures_of
from interp.runs.command import command_of
from interp.runs.shipped import is_shipped, shipped_runs
from interp.runs.store import Run, Store
from interp.runs.unfinished import unfinished

LATEST = 4
"""Results that are shown as pictures."""
HIGHEST = 460
"""Pixels of a picture; one with many panels has the whole width, and twice that."""
MEMORY = "memory of its process, MiB"
ALONE = "The most that the process held that was asked for the run, without its --workers."
_LONGEST = 2000
"""Characters of a question: what goes into a URL."""


class Question(NamedTuple):
    """One way to begin."""

    title: str
    """The box's label."""
    asks: str
    example: str
    says: str
    page: str
    """Where it is answered, and the parameter that the answer is typed into."""
    parameter: str
    more: tuple[tuple[str, str], ...] = ()


QUESTIONS = (
    Question(
        "A word",
        "Which neurons stand for a word?",
        "dog",
        "Every MLP neuron's weights, read through the model's own LM head.",
        "atlas",
        "word",
    ),
    Question(
        "A prompt",
        "Why does the model say this?",
        "The capital of France is",
        "Each token's probability, and the neurons, heads and latents behind the next one.",
        "prompt",
        "text",
    ),
    Question(
        "A direction",
        "What does this direction mean?",
        "29.down.808",
        "A neuron, an SAE's latent or a stored vector: its tokens, neighbours, what it does.",
        "direction",
        "direction",
    ),
    Question(
        "A model",
        "What is in this model?",
        "smollm2-135m",
        "A name, a folder or a hub id: make its atlas, then search it.",
        "new",
        "model",
        (("study", "neurons.atlas"),),
    ),
)


@errors_in_place()
def page() -> None:
    st.title("What do you want to know?")
    for row in (QUESTIONS[:2], QUESTIONS[2:]):
        for column, question in zip(st.columns(len(row)), row, strict=True):
            with column, st.container(border=True, height="stretch"):
                _ask(question)
    store = Store()
    found, complaints = store.looked_through()
    ships = [run for run in shipped_runs() if run.path.name not in {r.path.name for r in found}]
    _pictures(found or ships, bool(found))
    _stored(found, ships)
    left_out(complaints, unfinished(store.root))


def _ask(question: Question) -> None:
    """A question's box; its answer is another page."""
    st.subheader(plain(question.asks), anchor=False)
    st.caption(plain(question.says))
    with st.form(f"ask {question.page}", border=False):
        typed = st.text_input(
            plain(question.title),
            placeholder=question.example,
            key=f"ask {question.page} {question.parameter}",
            label_visibility="collapsed",
            max_chars=_LONGEST,
        )
        asked = st.form_submit_button(plain(f"Ask about {question.title.lower()}"))
    pages = st.session_state.get(PAGES, {})
    if asked and question.page in pages:
        own = {question.parameter: typed.strip() or question.example}
        model = own.get("model", chosen_model())
        st.switch_page(
            pages[question.page], query_params={"model": model, **own, **dict(question.more)}
        )


@cached
def first_figure(run: Run) -> Figure | None:
    """The first figure of a run; None where it has none."""
    figures = figures_of(run)
    return next(iter(figures.values()))() if figures else None


def _pictures(runs: list[Run], own: bool) -> None:
    """The newest runs that have a picture."""
    st.header("The latest results" if own else "Results that ship with the workbench")
    if not own:
        st.caption(plain(f"Nothing is stored in {Store().root} yet. A neuron atlas of SmolLM2:"))
        make_one("neurons.atlas", model=chosen_model())
    drawable = [run for run in runs if place(run.study, "")][: 3 * LATEST]
    free: list[DeltaGenerator] = []
    shown = 0
    for run in drawable:
        if shown == LATEST:
            break
        with errors_in_place():
            if (figure := first_figure(run)) is None:
                continue
            wide = many_panels(figure)
            free = free if wide or free else list(st.columns(2))
            with st.container() if wide else free.pop(0):
                _open(run)
                height = min(figure.layout.height or HIGHEST, 2 * HIGHEST if wide else HIGHEST)
                charts(f"latest {run_key(run)}", figure.update_layout(height=height))
            shown += 1


def _title(run: Run) -> str:
    model = str(run.config.get("model") or "").rpartition("/")[2]
    return " · ".join(filter(None, [run.study, model, label(run.study, run.config)]))


def _open(run: Run) -> None:
    """The link to a run's page, if there is one."""
    if there := place(run.study, run_key(run)):
        model = {"model": str(run.config["model"])} if run.config.get("model") else {}
        link(there[0], f"Open {_title(run)}", ":material/arrow_forward:", **model, **there[1])


def _stored(found: list[Run], ships: list[Run]) -> None:
    """Every run in a table; one that is selected shows its numbers and leads to its page."""
    if not (runs := [*found, *ships]):
        return
    st.header("Everything stored")
    st.caption("Select a run for its numbers, its page and its command.")
    rows = [
        {
            "study": run.study,
            "model": str(run.config.get("model") or "").rpartition("/")[2],
            "of": label(run.study, run.config),
            "finished": "shipped" if is_shipped(run) else _when(run),
            "took": in_words(run.manifest["wall_s"]),
            MEMORY: round(run.manifest["peak_memory_bytes"] / 2**20),
            "key": run_key(run)[:12],
        }
        for run in runs
    ]
    event = st.dataframe(
        pd.DataFrame(rows),
        key="stored",
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        column_config={
            "of": st.column_config.Column(width="large"),
            MEMORY: st.column_config.Column(help=ALONE),
        },
    )
    if chosen := [runs[i] for i in event["selection"]["rows"] if i < len(runs)]:
        _about(chosen[0])


def _when(run: Run) -> str:
    return str(run.manifest["finished"]).replace("T", " ")[:16]


def _about(run: Run) -> None:
    """A run: its page, its numbers, what makes it, its manifest."""
    st.subheader(plain(_title(run)), anchor=False)
    _open(run)
    metrics = [
        {"metric": name, "value": f"{value:.4g}" if isinstance(value, float) else str(value)}
        for name, value in run.metrics.items()
    ]
    if metrics:
        st.dataframe(pd.DataFrame(metrics), hide_index=True, key="metrics")
    if line := command_of(run.path):
        st.code(line, language="bash")
    with st.expander("Its manifest"):
        st.json(run.manifest, expanded=1)
    code(["interp", "report", str(run.path)])
