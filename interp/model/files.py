"""Where models are kept, their small files and the hash that names a file's content."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from .. import plain_json
from ..errors import UserError
from ..progress import log


def home() -> Path:
    """Where models are kept: $INTERP_HOME, or the platform's cache folder."""
    chosen = os.environ.get("INTERP_HOME")
    return Path(chosen) if chosen else user_cache_path("interp")


def state_of(path: Path) -> str:
    """What is another wherever a file's content is: size and time of change can be kept (an archive
    unpacked over another, `touch`), the file system's own time of change and number cannot."""
    seen = path.stat()
    return f"{seen.st_size}|{seen.st_mtime_ns}|{seen.st_ctime_ns}|{seen.st_ino}|{seen.st_dev}"


def sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def read_json(path: Path) -> dict[str, Any]:
    """An object from a JSON file of a model folder.

    Raises:
        UserError: no such file, or a damaged one.
    """
    if not path.exists():
        raise UserError(f"{path.parent} is no model folder: it has no {path.name}")
    content: dict[str, Any] = plain_json.read_json(path, "fetch it again")
    return content


def remembered(about: str, form: str, make: Callable[[], str]) -> str:
    """What `make` gives, kept in `home()` under the hash of what it is about; where nothing can be
    kept, it is made each time.

    Args:
        form: a regular expression; a kept text that does not match it is damaged, or another
            process is writing it, and it is made again. No beginning of a text may match.
    """
    note = home() / "fingerprints" / hashlib.sha256(about.encode()).hexdigest()
    if note.exists() and re.fullmatch(form.encode(), kept := note.read_bytes()):
        return kept.decode()
    value = make()
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        # no temporary name that a kill would leave: a half-written note does not match its form
        note.write_text(value)
    except OSError as error:
        _warn_once(str(note.parent), error.strerror)
    return value


@cache
def _warn_once(folder: str, reason: str) -> None:
    log.warning("cannot keep anything in %s: %s; set INTERP_HOME", folder, reason)
