"""The queue of a store's jobs: each is worked off by a process of its own, which waits its turn.

There is no scheduler. A process that waits looks whether it is the first that does, and then takes
one of as many locks as jobs may run at once; what it holds is free again when it is gone, however
that was. The lock that says that a job lives is taken before its process is started, and handed to
it: at no moment is a job seen that nobody seems to work off.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import UserError, readable
from ..progress import log
from .disk import unwritable
from .jobs import (
    CANCELLED,
    LOCK,
    LOG,
    NO_JOB,
    NOTE,
    RESULT,
    STARTED,
    Job,
    check_words,
    jobs_folder,
    new_folder,
    open_job,
    write,
)
from .watched import held, watched

SLOTS = "INTERP_JOBS"
"""The variable that says how many jobs run at once."""
PATIENCE = 0.3
"""Seconds between two looks of a job that waits."""
INTERRUPTED = 130
"""The exit code of a command that was stopped."""
Command = Callable[[list[str]], tuple[int, str]]
"""`interp` itself: from its arguments to the exit code and a line about what went wrong."""


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def slots() -> int:
    """How many jobs run at once: one for every four cores, or as $INTERP_JOBS says.

    Raises:
        UserError: the variable holds no number from 1 on.
    """
    asked = os.environ.get(SLOTS)
    if not asked:
        return max(1, cores() // 4)
    if not asked.isdecimal() or not 1 <= int(asked) <= 1000:
        raise UserError(f"${SLOTS} is a number of jobs from 1 on, not '{asked}'")
    return int(asked)


def start(root: Path, words: tuple[str, ...], title: str = "") -> Job:
    """Put a study's command in a store's queue.

    Args:
        words: those after `interp`: ("neurons", "atlas", "--model", "smollm2-135m").

    Raises:
        UserError: they are no job (`check_words`), or the store cannot be written.
    """
    root, together = root.resolve(), slots()
    folder = new_folder(root, words, title)
    # what takes part in a computation is divided between the jobs that run at once
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores() // together))
    env = {**os.environ, "OMP_NUM_THREADS": threads, "INTERP_RUNS": str(root)}
    try:
        lock = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR, 0o666)
        fcntl.flock(lock, fcntl.LOCK_EX)
        with (folder / LOG).open("wb") as said:
            own = ("jobs", "run", folder.name, "--runs", str(root), "--lock", str(lock))
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "interp", *own],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=env,
                pass_fds=(lock,),
                start_new_session=True,
            )
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)  # nobody works it off
        raise UserError(unwritable(folder, error, NO_JOB)) from error
    os.close(lock)
    # a server that lives on takes note of its end
    threading.Thread(target=process.wait, daemon=True).start()
    return open_job(folder)


def again(job: Job) -> Job:
    """Put a job's command in the queue once more, which resumes its run. One that did not finish is
    replaced in the list.

    Raises:
        UserError: it has not ended, or cannot be started.
    """
    if job.alive:
        raise UserError(f"job {job.id} has not ended: it needs no second one")
    fresh = start(job.folder.parents[1], job.words, job.title)
    if job.state != "finished":
        remove(job)
    return fresh


def work(root: Path, name: str, lock: int, command: Command) -> int:
    """Work off a job: wait for its turn, run its command, keep what became of it.

    Args:
        lock: the descriptor of its held lock; -1 to take it.
        command: runs `interp` with some arguments.

    Returns:
        the command's exit code.

    Raises:
        UserError: there is no such job, or another process works it off.
    """
    folder = jobs_folder(root) / name
    job = open_job(folder)
    check_words(job.words)
    if lock < 0:
        lock = _taken(folder / LOCK)
        if lock < 0 or job.started:
            raise UserError(f"job {name} is worked off already, or was: see `interp jobs list`")
    slot = _turn(job)
    if slot < 0:
        log.info("cancelled while it waited")
        return INTERRUPTED
    write(folder, STARTED, {"time": time.time(), "pid": os.getpid()}, "the job does not start")
    said = io.StringIO()
    result: dict[str, Any] = {"code": 1, "line": ""}
    try:
        with contextlib.redirect_stdout(said), watched(folder):
            words = [*job.words, "--runs", str(root), "--json"]
            result["code"], result["line"] = command(words)
    finally:
        # an exception on its way is a fault of the workbench, and the log has all of it
        if fault := sys.exc_info()[1]:
            result["line"] = f"{type(fault).__name__}: {fault} (a fault: its log says where)"
        _keep(folder, result, said.getvalue())
        os.close(slot)
    return int(result["code"])


def _keep(folder: Path, result: dict[str, Any], said: str) -> None:
    """What a command said goes into the log, and what became of it into the job's folder."""
    sys.stdout.write(said)
    sys.stdout.flush()
    run = _run_in(said) if result["code"] == 0 else None
    about = {"line": readable(result["line"]), "run": run, "time": time.time()}
    write(folder, RESULT, {**result, **about})


def _run_in(said: str) -> str | None:
    """The run's folder, of the one JSON object on the last line; of several runs, the last one."""
    try:
        told = json.loads(said.strip().rpartition("\n")[2])
    except ValueError:
        return None
    if isinstance(told, dict) and isinstance(told.get("runs"), list) and told["runs"]:
        told = told["runs"][-1]
    run = told.get("run") if isinstance(told, dict) else told
    return run if isinstance(run, str) else None


def _turn(job: Job) -> int:
    """Wait for a job's turn: the descriptor of the lock that it then holds, -1 if it is cancelled
    or removed before."""
    together = slots()
    while (job.folder / NOTE).exists() and not (job.folder / CANCELLED).exists():
        if not any(_waits_before(job, other) for other in job.folder.parent.iterdir()):
            for number in range(together):
                if (slot := _taken(job.folder.parent / f".slot-{number}")) >= 0:
                    return slot
        time.sleep(PATIENCE)
    return -1


def _waits_before(job: Job, other: Path) -> bool:
    """Whether another job is to have its turn first."""
    if other.name == job.id or any((other / name).exists() for name in (RESULT, STARTED)):
        return False
    if other.name.startswith(".") or not held(other / LOCK):
        return False
    try:
        first = open_job(other)
    except UserError:
        return False
    return first.state == "waiting" and first.place < job.place


def _taken(lock: Path) -> int:
    """The descriptor of a lock that nobody else holds, held; -1 if somebody does."""
    flags = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(lock, flags, 0o666)
    except OSError as error:
        raise UserError(unwritable(lock, error, "the job does not start")) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return -1
    return descriptor


def cancel(job: Job) -> None:
    """Ask a job to stop; a second time, end it. The run's finished parts are kept.

    Raises:
        UserError: it has ended already.
    """
    if not job.alive:
        raise UserError(f"job {job.id} has ended already ({job.state})")
    write(job.folder, CANCELLED, {}, "the job goes on")
    # one that waits sees it there by itself
    if job.pid and _is_of(job.pid, job.id):
        _signal(job.pid, signal.SIGKILL if job.cancelling else signal.SIGINT)


def _signal(pid: int, number: signal.Signals) -> None:
    """To a process and those that it has started, as Ctrl-C in a terminal."""
    try:
        if os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise UserError("the job is another user's: only that one can cancel it") from error


def _is_of(pid: int, job: str) -> bool:
    """Whether a process is a job's own, where the system says what it was started as."""
    if not Path("/proc/self/cmdline").exists():
        return pid > 1
    try:
        return job.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def remove(job: Job) -> None:
    """Take a job from the list; its run stays.

    Raises:
        UserError: it has not ended, or cannot be removed.
    """
    if job.alive:
        raise UserError(f"job {job.id} has not ended: cancel it first")
    try:
        shutil.rmtree(job.folder)
    except OSError as error:
        raise UserError(f"cannot remove {job.folder}: {error.strerror}") from error
