"""What writing a run asks of the machine: hashes, memory, files that stay on the disk."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import resource
from pathlib import Path

KEPT = "what was written before is kept"
"""Files are written beside and renamed: parts of a run, and what an export replaces."""


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def peak_memory() -> int:
    """Most resident bytes this process has had."""
    status = Path("/proc/self/status")
    if status.exists():
        # not getrusage: Linux carries its maximum over from the process that started this one
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unwritable(path: Path, error: OSError) -> str:
    fix = "free some space" if error.errno == errno.ENOSPC else "choose a folder you can write to"
    return f"cannot write {path}: {error.strerror or error}; {fix} ({KEPT})"
