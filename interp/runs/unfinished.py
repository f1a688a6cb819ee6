"""Runs of a store that were begun and are not finished."""

from __future__ import annotations

from pathlib import Path

from .command import command_of
from .manifest import JOURNAL


def unfinished(root: Path, study: str = "*") -> list[str]:
    """A line for each, with the command that goes on with it; one may be under way right now."""
    return [
        f"{folder} is not finished (stopped, or under way): {resuming(folder)}"
        for folder in begun(root, study)
    ]


def begun(root: Path, study: str = "*") -> list[Path]:
    """Their folders."""
    return [
        folder
        for folder in sorted(path.parent for path in root.glob(f"{study}/*/run.json"))
        # a hidden one is to replace another run, which there is
        if not folder.name.startswith(".") and not (folder / "manifest.json").exists()
        # before its first part there is nothing to resume: it may have been refused
        if (folder / JOURNAL).exists()
    ]


def resuming(folder: Path) -> str:
    """What goes on with an unfinished run."""
    own = command_of(folder)
    return f"`{own}` resumes it" if own else "run its command again to resume it"
