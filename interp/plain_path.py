"""Paths as people type them."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import UserError

LONGEST_NAME, LONGEST_PATH = 255, 4095
"""In bytes; Linux takes no longer ones."""


def plain_path(text: str | Path) -> Path:
    """A path whose `~` is the home it stands for.

    Raises:
        UserError: a home of nobody, or a name that no file can have.
    """
    try:
        path = Path(text).expanduser()
        names = [os.fsencode(part) for part in path.parts]
    except RuntimeError as error:
        raise UserError(f"'{text}' begins with a home that is not there: write it out") from error
    except UnicodeEncodeError as error:
        raise UserError(f"{str(text)!r} can be no file's name: give another") from error
    if any(b"\0" in name for name in names):
        raise UserError(f"{str(text)!r} can be no file's name: give another")
    if max(map(len, names), default=0) > LONGEST_NAME or len(b"/".join(names)) > LONGEST_PATH:
        raise UserError(f"'{text}' is too long for a file's name: give another")
    return path


def lacks(folder: Path, name: str) -> str:
    """Why a folder is not one of the kind that is looked for: it is not there, is no folder, or has
    no file of that name."""
    if folder.is_dir():
        return f"no {name}"
    return "it is no folder" if folder.exists() else "there is no such folder"


def found(text: str | Path) -> Path | None:
    """What lies at a path; None if nothing does, as where the text is a name of another kind and
    may be longer than any path."""
    try:
        path = plain_path(text)
        return path if path.exists() else None
    except (UserError, PermissionError):
        return None
