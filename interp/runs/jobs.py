"""Jobs: commands of `interp` that were put in a store's queue.

    <store>/.jobs/<id>/
        job.json       words of the command, title, when it was put there
        lock           held by the job's process for as long as it lives
        started.json   when its turn came, and its process
        .progress.json how far it has come (watched.py)
        cancelled      it was asked to stop
        log            what the command said
        result.json    exit code, last line, run folder: written last

How a job stands is derived from these, never stored: one without a result whose lock no one holds
was stopped, by a kill or a reboot. A process of its own works each off (queue.py), so a job needs
no app and outlives any. A store may come from someone else: what is read is checked, and the only
thing that is ever started is the command of a registered study, with its run in this store.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import UserError, readable
from ..plain_json import check, read_json
from ..progress import Step
from .disk import unwritable
from .fit import class_of
from .manifest import KEY
from .parts import whole
from .watched import held, seen

FOLDER = ".jobs"
ID = re.compile(r"\d{8}-\d{6}-\d{3}[0-9a-f]{2}")
NOTE, LOCK, LOG, STARTED = "job.json", "lock", "log", "started.json"
CANCELLED, RESULT = "cancelled", "result.json"
State = Literal["waiting", "running", "finished", "failed", "cancelled", "stopped"]
OWN_OPTIONS = ("--runs", "--out", "--json", "--help", "-h")
"""Options that a job's words do not have: the queue adds the store and --json."""
LONGEST = 100_000
"""Letters of a command, at most."""
OWN_CODE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""A network of one's own, package.module:name, which is imported."""
_NAME = re.compile(r"[A-Za-z]\w*")
_NO_STUDY = "is no study: a job is a study's command, as `interp --help` has them"
_FIX = "remove its folder"
NO_JOB = "no job is made"


@dataclass(frozen=True)
class Job:
    """A job as it stood when it was looked at."""

    folder: Path
    words: tuple[str, ...]
    """Of the command, without `interp`: ("neurons", "atlas", "--model", "smollm2-135m")."""
    title: str
    created: float
    """In seconds since 1970, as the other times."""
    state: State
    started: float | None = None
    ended: float | None = None
    cancelling: bool = False
    """It was asked to stop and has not yet."""
    step: Step | None = None
    """How far it has come, while it runs."""
    line: str = ""
    """What it said at its end, if it did not finish."""
    run: Path | None = None
    """The run's folder, of one that has finished."""
    pid: int | None = None

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def study(self) -> str:
        return ".".join(self.words[:2])

    @property
    def alive(self) -> bool:
        return self.state in ("waiting", "running")

    @property
    def place(self) -> tuple[float, str]:
        """Its place in the queue."""
        return self.created, self.id


def jobs_folder(root: Path) -> Path:
    """Where a store keeps its jobs.

    Raises:
        UserError: it is a link.
    """
    folder = root / FOLDER
    if folder.is_symlink():
        raise UserError(f"{folder} is a link: jobs are kept in a folder, so remove it")
    return folder


def all_jobs(root: Path) -> tuple[list[Job], list[str]]:
    """The jobs of a store, newest first, and what is wrong with those that cannot be read."""
    found, complaints = [], []
    for folder in _folders(root):
        try:
            found.append(open_job(folder))
        except UserError as error:
            complaints.append(readable(str(error)))
    return sorted(found, key=lambda job: job.place, reverse=True), complaints


def active(root: Path) -> list[Job]:
    """The jobs that wait or run, first come first; quick, however many have ended."""
    found = []
    for folder in _folders(root):
        if not (folder / RESULT).exists() and held(folder / LOCK):
            try:
                found.append(open_job(folder))
            except UserError:  # all_jobs says so
                continue
    return sorted((job for job in found if job.alive), key=lambda job: job.place)


def _folders(root: Path) -> list[Path]:
    try:
        inside = list(jobs_folder(root).iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"cannot read {root / FOLDER}: {error.strerror}") from error
    return [path for path in inside if not path.name.startswith(".")]


def find_job(root: Path, name: str) -> Job:
    """A job by its id, the last letters of it, or "" for the newest.

    Raises:
        UserError: there is none, or there are several.
    """
    ids = sorted(path.name for path in _folders(root))
    fitting = [each for each in ids if each.endswith(name)] if name else ids[-1:]
    if len(fitting) != 1:
        said = f"{len(fitting)} jobs end in '{name}'" if fitting else f"there is no job '{name}'"
        raise UserError(f"{said}: {root} has {', '.join(ids[-6:]) or 'none'}")
    return open_job(jobs_folder(root) / fitting[0])


def open_job(folder: Path) -> Job:
    """The job in a folder.

    Raises:
        UserError: it is no job, or a damaged one.
    """
    if not ID.fullmatch(folder.name) or folder.is_symlink() or not folder.is_dir():
        raise UserError(f"{folder} is no job: {_FIX}")
    note = _read(folder, NOTE, {"words": list[str], "title": str, "created": float})
    words = tuple(note["words"])
    check_form(words, f"{folder} is refused: ")
    started: dict[str, Any] = {"time": None, "pid": None}
    if (folder / STARTED).exists():
        started = _read(folder, STARTED, {"time": float, "pid": int})
    job = Job(folder, words, note["title"], note["created"], "waiting", started["time"])
    if (folder / RESULT).exists():
        return _ended(job)
    asked = (folder / CANCELLED).exists()
    waits = not (folder / STARTED).exists()
    state: State = "cancelled" if asked else "stopped"
    if held(folder / LOCK) and not (asked and waits):
        state = "waiting" if waits else "running"
    said = seen(folder) if state == "running" else None
    changes = {"state": state, "cancelling": asked, "step": said and said.step}
    line = "its process is gone: killed, or the machine was restarted" if state == "stopped" else ""
    return Job(**{**vars(job), **changes, "line": line, "pid": started["pid"]})


def _ended(job: Job) -> Job:
    kinds = {"code": int, "time": float, "line": str, "run": str | None}
    result = _read(job.folder, RESULT, kinds)
    states: dict[int, State] = {0: "finished", 130: "cancelled"}
    key = Path(result["run"] or "").name
    run = job.folder.parents[1] / job.study / key if KEY.fullmatch(key) else None
    changes = {"state": states.get(result["code"], "failed"), "ended": result["time"], "run": run}
    return Job(**{**vars(job), **changes, "line": result["line"]})


def _read(folder: Path, name: str, kinds: dict[str, Any]) -> dict[str, Any]:
    path = folder / name
    if path.is_symlink():
        raise UserError(f"{path} is a link: {_FIX}")
    content: dict[str, Any] = read_json(path, _FIX)
    for entry, kind in kinds.items():
        check(content.get(entry), kind, f"'{entry}' of {path}", _FIX)
        if isinstance(content[entry], int | float) and not abs(content[entry]) < 2**53:
            raise UserError(f"'{entry}' of {path} is no number of this world: {_FIX}")
    return content


def check_words(words: tuple[str, ...]) -> None:
    """Refuse what is not the command of a registered study that writes into this store; before
    anything is started.

    Raises:
        UserError: it is none.
    """
    check_form(words)
    if not class_of(".".join(words[:2])):
        raise UserError(f"'{'.'.join(words[:2])}' {_NO_STUDY}")


def check_form(words: tuple[str, ...], before: str = "") -> None:
    """Refuse words that cannot be those of a job. No study's class is looked up, and imported: to
    list jobs takes no torch.

    Raises:
        UserError: they cannot.
    """
    if len(words) < 2 or not all(map(_NAME.fullmatch, words[:2])):
        raise UserError(f"{before}'{'.'.join(words[:2])}' {_NO_STUDY}")
    if sum(map(len, words)) > LONGEST or any("\0" in word for word in words):
        raise UserError(f"{before}its words are more than a command has")
    for option in (word.partition("=")[0] for word in words[2:]):
        if option in OWN_OPTIONS:
            raise UserError(f"{before}leave {option} out: a job's run goes into its own store")
    for model in models_in(words):
        if OWN_CODE.fullmatch(model):
            raise UserError(f"{before}{model} is code: a network of your own runs in the terminal")


def models_in(words: tuple[str, ...]) -> list[str]:
    """The models that a command names."""
    found, inside = [], False
    for word in words:
        if word.startswith("-"):
            name, joined, value = word.partition("=")
            inside = name == "--model"
            found += [value] if inside and joined else []
        elif inside:
            found.append(word)
    return found


def new_folder(root: Path, words: tuple[str, ...], title: str = "") -> Path:
    """The folder of a new job, which nobody works off yet.

    Raises:
        UserError: the words are no job, or the store cannot be written.
    """
    check_words(words)
    now = time.time()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
    folder = jobs_folder(root) / f"{stamp}-{int(now * 1000) % 1000:03d}{secrets.token_hex(1)}"
    note = {"words": list(words), "title": title or titled(words), "created": now}
    making = folder.with_name(f".{folder.name}")  # which is no job yet
    try:
        making.mkdir(parents=True)
        write(making, NOTE, note, NO_JOB)
        making.rename(folder)
    except OSError as error:
        raise UserError(unwritable(folder, error, NO_JOB)) from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return folder


def titled(words: tuple[str, ...]) -> str:
    """What a job is called where nobody says: its study and the rest of its words."""
    rest = " ".join(words[2:])
    return f"{'.'.join(words[:2])} {rest if len(rest) < 100 else f'{rest[:100]} …'}".strip()


def write(
    folder: Path, name: str, content: dict[str, Any], left: str = "the parts of its run are kept"
) -> None:
    """A file of a job, whole or not at all.

    Args:
        left: what a message says of what stays where it cannot be written.
    """
    with whole(folder, name, left) as making:
        making.write_text(json.dumps(content), encoding="utf-8")


def log_tail(job: Job, most: int = 4000) -> str:
    """The last letters of a job's log."""
    path = job.folder / LOG
    if path.is_symlink() or not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - most, 0))
        text = file.read(most).decode("utf-8", "replace")
    whole_lines = text if path.stat().st_size <= most else text.partition("\n")[2]
    return whole_lines.replace("\r", "\n").strip()
