"""How far a run or a job has come, in a hidden file of its folder, so that anyone can watch it.

The file is no part of the run and is not synced to the disk: where it cannot be written, nobody
watches, and the work goes on. It is there while the work is under way, and is removed at its end;
what a killed process leaves is told apart by the lock that no one holds any more.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path

from ..errors import UserError
from ..plain_json import check, read_json, record
from ..progress import Step, listening

FILE = ".progress.json"
LOCK = ".lock"
"""The lock that whoever writes a run holds."""
LARGEST = 10_000
"""Bytes of the file; what is larger is no one's that this package wrote."""


@dataclass(frozen=True)
class Seen:
    """What the file says: the step, and the process that takes it."""

    step: Step
    pid: int


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Keep the file of a folder while the block runs."""

    def keep(step: Step) -> None:
        with suppress(OSError):
            _write(folder / FILE, json.dumps({"step": asdict(step), "pid": os.getpid()}))

    try:
        with listening(keep):
            yield
    finally:
        clear(folder)


def clear(folder: Path) -> None:
    """Remove the file; in a folder that cannot be written to it stays, and nobody believes it."""
    with suppress(OSError):
        (folder / FILE).unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    making = path.with_name(f"{path.name}.making")
    making.unlink(missing_ok=True)  # a link that lies there would be written through
    flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY
    with os.fdopen(os.open(making, flags, 0o666), "w", encoding="utf-8") as file:
        file.write(text)
    making.rename(path)


def seen(folder: Path) -> Seen | None:
    """What the file of a folder says; None where there is none, or where it is none of ours."""
    path = folder / FILE
    try:
        if path.is_symlink() or path.stat().st_size > LARGEST:
            return None
        said = read_json(path)
        check(said.get("pid"), int, f"'pid' of {path}")
        step = record(Step, said.get("step"), str(path))
    except (OSError, UserError):
        return None
    numbers = (step.done, step.total, step.rate, step.eta or 0.0, step.time)
    return Seen(step, said["pid"]) if all(map(isfinite, numbers)) else None


def held(lock: Path) -> bool:
    """Whether a process holds a file lock.

    To ask is to share it for a moment. So whoever takes a lock that is asked about tries for longer
    than a moment (making.py).
    """
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(descriptor)
    return False


def under_way(root: Path) -> dict[Path, Seen]:
    """The runs of a store that are being written right now, by their folders."""
    found = sorted(path.parent for path in root.glob(f"*/*/{FILE}"))
    shown = {folder: seen(folder) for folder in found if held(folder / LOCK)}
    return {folder: said for folder, said in shown.items() if said}
