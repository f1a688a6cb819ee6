"""The jobs page: what runs, waits or has ended, and what can be resumed; and the line about it that
every page has. Each job is a process of its own: the app only looks."""

from __future__ import annotations

import time
from pathlib import Path

import streamlit as st

from interp.analyses import place
from interp.apps.common import errors_in_place, link, of_the_hub
from interp.apps.form import allowed_config, config_kind
from interp.apps.words import plain
from interp.errors import UserError, readable
from interp.model.allowed import check_words_allowed
from interp.model.catalog import asks_the_hub
from interp.plain_json import check, read_json
from interp.progress import Step, in_words
from interp.runs import queue
from interp.runs.command import command
from interp.runs.jobs import Job, active, all_jobs, find_job, log_tail, models_in
from interp.runs.store import Store
from interp.runs.unfinished import begun
from interp.runs.watched import Seen, under_way

EVERY = 2
"""Seconds between two looks."""
SHOWN = 20
"""Jobs that have ended, in the list."""
STATES = {
    "waiting": ("schedule", "gray"),
    "running": ("play_circle", "blue"),
    "finished": ("check_circle", "green"),
    "failed": ("error", "red"),
    "cancelled": ("cancel", "gray"),
    "stopped": ("power_off", "orange"),
}
"""How each is marked."""


@errors_in_place()
def page() -> None:
    st.title("Jobs")
    st.caption(
        "Each job is a process of its own. Close the browser or stop the app: it goes on. "
        f"At most {queue.slots():,} at once here, first come first served."
    )
    link("new", "New study", ":material/add_circle:")
    root = Store().root
    busy = bool(active(root) or under_way(root))
    st.fragment(_watched, run_every=EVERY)(root, busy)
    _damaged(root)


@errors_in_place()
def _watched(root: Path, busy: bool) -> None:
    """Everything that moves."""
    found, complaints = all_jobs(root)
    own = {job.pid for job in found}
    writing = under_way(root)
    others = {path: said for path, said in writing.items() if said.pid not in own}
    if busy and not others and not any(job.alive for job in found):
        st.rerun()  # all has ended: what is below changes
    if not found and not others:
        st.info("Nothing runs, waits or has ended here yet.")
    alive = sorted((job for job in found if job.alive), key=lambda job: job.place)
    for job in alive:
        _job(job)
    for path, said in others.items():
        _elsewhere(path, said)
    ended = [job for job in found if not job.alive]
    for job in ended[:SHOWN]:
        _job(job)
    if len(ended) > SHOWN:
        st.caption(f"{len(ended) - SHOWN:,} more have ended: `interp jobs list` has them.")
    for complaint in complaints:
        st.warning(plain(complaint))
    again = [job for job in found if job.state != "finished"]
    left = [folder for folder in begun(root) if folder not in writing]
    _unfinished([folder for folder in left if not _has_job(folder, again)], root)


def _job(job: Job) -> None:
    """A job, with what can be done about it."""
    with st.container(border=True, key=f"job {job.id}"):
        icon, colour = STATES[job.state]
        state = "stopping" if job.cancelling and job.state == "running" else job.state
        with st.container(horizontal=True, vertical_alignment="center"):
            st.badge(plain(state), icon=f":material/{icon}:", color=colour)  # type: ignore[arg-type]
            st.markdown(f"**{plain(job.title)}**", width="stretch")
            st.caption(plain(_when(job)), width="content")
        if job.state == "running":
            _bar(job.step)
        elif job.line:
            st.caption(plain(job.line))
        with st.container(horizontal=True), errors_in_place():
            _buttons(job)
        if st.session_state.get(f"log {job.id}"):
            st.code(log_tail(job) or "It has said nothing yet.", language=None, wrap_lines=True)


def _bar(step: Step | None) -> None:
    if step is None or step.share is None:
        st.progress(0.0, text=plain(step or "It has just begun."))
    else:
        st.progress(step.share, text=plain(step))


def _buttons(job: Job) -> None:
    if job.alive:
        label = "End it now" if job.cancelling else "Cancel"
        about = "Its run keeps what is finished, and the same command resumes it."
        if st.button(
            plain(label), key=f"cancel {job.id}", icon=":material/stop:", help=plain(about)
        ):
            queue.cancel(find_job(job.folder.parents[1], job.id))
            st.rerun()
    else:
        _show_run(job)
        if job.state != "finished":
            _again(job)
        if st.button("Remove", key=f"remove {job.id}", help="From this list. Its run stays."):
            queue.remove(find_job(job.folder.parents[1], job.id))
            st.rerun()
    st.toggle("Log", key=f"log {job.id}")


def _again(job: Job) -> None:
    """What puts its command in the queue once more: it may be anybody's."""
    hub = [model for model in models_in(job.words) if asks_the_hub(model)]
    names = ", ".join(hub)
    if hub and not st.toggle(f"Fetch {plain(names + of_the_hub(names))}", key=f"hub {job.id}"):
        return
    if st.button("Start again", key=f"again {job.id}", icon=":material/replay:"):
        check_words_allowed(job.words)
        queue.again(find_job(job.folder.parents[1], job.id))
        st.rerun()


def _show_run(job: Job) -> None:
    """A link to what a job has made."""
    if job.run is None:
        return
    if shown := place(job.study, job.run.name):
        address, params = shown
        link(address, "Open the run", ":material/open_in_new:", **params)
    else:
        st.caption(plain(f"No page shows it: {job.run}"))


def _elsewhere(folder: Path, said: Seen) -> None:
    """A run under way that is no job: of a terminal, a notebook or another page."""
    with st.container(border=True, key=f"run {folder.parent.name} {folder.name}"):
        name = f"{folder.parent.name} {folder.name.strip('.')}"
        st.markdown(f"**{plain(name)}** started elsewhere, as process {plain(said.pid)}")
        _bar(said.step)


def _when(job: Job) -> str:
    """How long it has waited, runs, or took."""
    now = time.time()
    if job.state == "waiting":
        return f"for {in_words(now - job.created)}"
    if job.state == "running" and job.started:
        return f"for {in_words(now - job.started)}"
    took = f"took {in_words(job.ended - job.started)}, " if job.ended and job.started else ""
    return f"{took}{in_words(now - (job.ended or job.created))} ago"


def _has_job(folder: Path, jobs: list[Job]) -> bool:
    """Whether one of these jobs makes the unfinished run in a folder: it is in the list with it."""
    own = [sorted(job.words) for job in jobs if job.study == folder.parent.name]
    if not own:  # what is below imports the study's class
        return False
    try:
        return sorted(words_of(*_plan(folder))) in own
    except UserError:  # its own line says so
        return False


def _unfinished(left: list[Path], root: Path) -> None:
    """Runs that were begun and are not finished, that no one is writing, and that no job of the
    list makes."""
    if not left:
        return
    st.subheader("Not finished")
    st.caption("Runs that were stopped. To resume one keeps what it has.")
    for folder in left:
        row = st.container(border=True, horizontal=True, vertical_alignment="center")
        with row, errors_in_place():
            _resumable(folder, root)


def _resumable(folder: Path, root: Path) -> None:
    study, given = _plan(folder)
    model = str(given.get("model") or "")
    st.markdown(f"**{plain(study)}** {plain(model)} {plain(folder.name)}", width="stretch")
    if model and asks_the_hub(model):
        link("new", "Open its form", ":material/edit:", study=study, model=model)
    elif st.button("Resume", key=f"resume {folder.parent.name} {folder.name}"):
        words = words_of(study, given)
        if any(job.words == words for job in active(root)):
            raise UserError("it is in the queue already")
        queue.start(root, words)
        st.rerun()


def _plan(folder: Path) -> tuple[str, dict[str, object]]:
    """The study and the settings of an unfinished run, which may be anybody's."""
    plan, where = read_json(folder / "run.json", "remove its folder"), f"{folder}/run.json"
    check(plan.get("study"), str, f"'study' of {where}", "remove its folder")
    check(plan.get("config"), dict, f"'config' of {where}", "remove its folder")
    if (plan["study"], plan.get("key")) != (folder.parent.name, folder.name):
        raise UserError(f"{folder} is not the run of its name: resume it with its own command")
    return plan["study"], plan["config"]


def words_of(study: str, given: dict[str, object]) -> tuple[str, ...]:
    """The words of a job that makes a run of these settings.

    Raises:
        UserError: there is no such study, or settings that it has not or that are not allowed here.
    """
    config = allowed_config(config_kind(study), given)
    values = {name: getattr(config, name) for name in config.__dataclass_fields__}
    return tuple(command(study, values)[1:])


def _damaged(root: Path) -> None:
    """Runs that cannot be read, with why."""
    complaints = Store(root).looked_through()[1]
    if complaints:
        st.subheader("Damaged")
        st.caption("Runs that no page shows, and why.")
        for complaint in complaints:
            st.warning(plain(readable(complaint)))


def status_line() -> None:
    """What runs and waits, in a line with a link to this page; nothing where nothing does."""
    try:
        busy = active(Store().root)
    except UserError:  # the page itself says why
        return
    # a place that is always there: a fragment is known by its place on the page, and those below
    # would be others, which the browser still asks for, whenever this one comes or goes
    with st.container(key="status line"):
        if busy:
            st.fragment(_status, run_every=EVERY)(Store().root)


def _status(root: Path) -> None:
    busy = active(root)
    running = [job for job in busy if job.state == "running"]
    waiting = len(busy) - len(running)
    parts = [f"{len(running)} running: {_brief(running)}"] if running else []
    parts += [f"{waiting} waiting"] if waiting else []
    link("jobs", " · ".join(parts) or "All jobs have ended", ":material/pending_actions:")


def _brief(running: list[Job]) -> str:
    """How far the first of the jobs that run has come."""
    job = running[0]
    return f"{job.study} {job.step.counted}{job.step.left}" if job.step else job.study
