"""`interp jobs`: the queue of a store."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import arg
from tyro.extras import SubcommandApp

from ..progress import in_words
from ..runs import queue
from ..runs.estimate import table
from ..runs.jobs import Job, all_jobs, check_words, find_job, log_tail
from ..runs.parts import export_text
from ..runs.store import Store
from ..runs.watched import under_way
from . import outcome, parse
from .common import Json, Runs, answered, command, print_table, say

jobs = SubcommandApp()
Words = Annotated[
    tuple[str, ...],
    tyro.conf.Positional,
    arg(metavar="COMMAND", help="A study's command, after two dashes: -- neurons atlas --k 20"),
]
Id = Annotated[
    str,
    tyro.conf.Positional,
    arg(metavar="JOB", help="Its id, or the last letters of it; by default the newest."),
]


@command(jobs, "add")
def _add(words: Words, title: str = "", runs: Runs = None, json: Json = False) -> None:
    """Put a study's command in the queue; it runs by itself, in a process of its own.

    Args:
        title: What to call it in the list.
    """
    check_words(words)
    parse(words)  # a mistake in its options is said now
    _told(queue.start(Store(runs).root, words, title), json)


@command(jobs, "list")
def _list(runs: Runs = None, json: Json = False) -> None:
    """Jobs, newest first, and other runs that are being written right now."""
    root = Store(runs).root
    found, complaints = all_jobs(root)
    own = {job.pid for job in found}
    others = {path: said for path, said in under_way(root).items() if said.pid not in own}
    counts = {"jobs": len(found), "waiting": 0, "running": 0}
    for job in found:
        counts[job.state] = counts.get(job.state, 0) + 1
    rows = [described(job) for job in found]
    running = [{"run": str(path), **vars(said.step)} for path, said in others.items()]
    more = {"results": rows, "under_way": running, "complaints": complaints}
    if answered(json, "jobs", counts, None, **more):
        return
    cells = [[r["id"], r["state"], _ago(r["created"]), r["progress"], r["title"]] for r in rows]
    print_table(["job", "state", "put there", "progress", "what"], cells)
    for path, said in others.items():
        say(f"under way, not as a job: {path}: {said.step}")
    for complaint in complaints:
        say(complaint)


@command(jobs, "log")
def _log(job: Id = "", runs: Runs = None, json: Json = False) -> None:
    """The end of what a job has said."""
    found = find_job(Store(runs).root, job)
    text = log_tail(found)
    if not answered(json, "jobs", {}, found.run, **described(found), log=text):
        say(*text.split("\n"))


@command(jobs, "cancel")
def _cancel(job: Id = "", runs: Runs = None, json: Json = False) -> None:
    """Stop a job; its run keeps what is finished. A second time: end its process."""
    found = find_job(Store(runs).root, job)
    queue.cancel(found)
    _told(find_job(found.folder.parents[1], found.id), json)


@command(jobs, "again")
def _again(job: Id = "", runs: Runs = None, json: Json = False) -> None:
    """Put a job's command in the queue once more, which resumes its run."""
    _told(queue.again(find_job(Store(runs).root, job)), json)


@command(jobs, "remove")
def _remove(job: Id = "", runs: Runs = None, json: Json = False) -> None:
    """Take a job that has ended from the list; its run stays."""
    found = find_job(Store(runs).root, job)
    queue.remove(found)
    if not answered(json, "jobs", {"removed": 1}, None, id=found.id):
        say(f"{found.id} is removed from the list")


@command(jobs, "run")
def _run(job: Id, runs: Runs = None, lock: int = -1) -> None:
    """Work off a job here, when its turn comes. `interp jobs add` starts this by itself.

    Args:
        lock: The descriptor of its lock, from the process that has started this one.
    """
    root = Store(runs).root.resolve()
    code = queue.work(root, find_job(root, job).id, lock, outcome)
    if code:
        raise SystemExit(code)


@command(jobs, "measured")
def _measured(
    stores: Annotated[tuple[Path, ...], tyro.conf.Positional, arg(metavar="DIR")],
    machine: str,
    out: Path,
    json: Json = False,
) -> None:
    """What the finished runs of stores took, as the table that the app's estimates come from.

    Args:
        stores: Folders of runs.
        machine: What they ran on, such as "2 cores, without a GPU".
        out: The file to write.
    """
    runs = [run for store in stores for run in Store(store).runs()]
    export_text(out, table(runs, machine))
    if not answered(json, "jobs", {"runs": len(runs)}, None, file=str(out)):
        say(out)


def described(job: Job) -> dict[str, Any]:
    """A job as JSON."""
    about = {"id": job.id, "state": job.state, "title": job.title, "words": list(job.words)}
    times = {"created": job.created, "started": job.started, "ended": job.ended}
    progress = str(job.step) if job.step else job.line
    run = str(job.run) if job.run else None
    return {**about, **times, "cancelling": job.cancelling, "progress": progress, "of_run": run}


def _ago(moment: float) -> str:
    return f"{in_words(max(time.time() - moment, 0))} ago"


def _told(job: Job, json: bool) -> None:
    """What became of a job."""
    if not answered(json, "jobs", {}, job.run, **described(job)):
        say(f"{job.id} is {job.state}: {job.title}")
