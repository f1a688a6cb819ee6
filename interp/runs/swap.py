"""A finished run put in the place of another one of the same key, whatever stops it on the way.

    KEY          the run that there is
    .KEY.fresh   the new one, finished: it has its manifest
    .KEY.old     the old one, from the moment the new one takes its place

Both moves are renames, so each folder is whole at every moment. `settle` finishes a swap that was
stopped between or after them: the new run stands where it is finished, else the old one comes back.
Files in the old folder that are not the run's go into the new one; they are never deleted.

Whoever only reads does not settle anything but the second rename. A folder that is a link is never
followed: what it leads to is not the run's.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import UserError
from .disk import sync_folder, unwritable
from .manifest import check_inside, read_manifest

_PASSING = re.compile(r"\..*\.(making|pieces)|\.lock|\.swap|\.progress\.json")
"""Hidden files and folders that a writer makes, none of which outlives its run."""


def passing(name: str) -> bool:
    """Whether a name is that of a file or folder which no run keeps."""
    return _PASSING.fullmatch(name) is not None


def fresh_folder(path: Path) -> Path:
    """Where the run that is to replace another is made."""
    return path.with_name(f".{path.name}.fresh")


def _old_folder(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def swap_in(path: Path) -> None:
    """Put the finished run in `fresh_folder(path)` at `path`."""
    try:
        if path.exists():
            path.rename(_old_folder(path))
            sync_folder(path.parent)
        else:
            fresh_folder(path).rename(path)
        _finish(path)
    except OSError as error:
        raise UserError(unwritable(path, error)) from error


def settle(path: Path, clear: bool = False) -> None:
    """Finish what a swap at `path` left undone, if anything; in a folder that one cannot write to,
    nothing.

    Args:
        clear: also take what is left of the old run away; for whoever makes runs.
    """
    if not path.exists() or clear:
        with suppress(OSError):
            _finish(path)


def check_no_link(path: Path) -> None:
    """Raise UserError if a run's folder, or one that a swap makes beside it, is a link."""
    for folder in (path, fresh_folder(path), _old_folder(path)):
        if folder.is_symlink():
            raise UserError(f"{folder} is a link: a run is written into a folder, so remove it")


def _finish(path: Path) -> None:
    """The steps after the old run has been moved away; each may be done already."""
    old = _old_folder(path)
    if not old.is_dir() or any(each.is_symlink() for each in (path, old, fresh_folder(path))):
        return
    with suppress(FileNotFoundError, Timeout), FileLock(old / ".swap", timeout=10):
        if not path.exists():
            fresh = fresh_folder(path)
            (fresh if (fresh / "manifest.json").is_file() else old).rename(path)
            sync_folder(path.parent)
        if old.is_dir():
            _clear(old, path)


def _clear(old: Path, new: Path) -> None:
    """Take the old run's own files away, the rest over, and its folder."""
    own = {"run.json", "manifest.json"}
    for folder in (old, new):
        with suppress(UserError):  # where one is damaged the other has the same names
            own |= read_manifest(folder)["files"].keys()
    inside = sorted(old.rglob("*"), reverse=True)  # what is in a folder before the folder
    for file in inside:
        name = file.relative_to(old)
        if file.is_dir() and not file.is_symlink():
            if not any(file.iterdir()):
                file.rmdir()
        elif str(name) in own or any(map(passing, name.parts)):
            if file.name != ".swap":
                file.unlink()
        else:
            with suppress(UserError):  # over a link nothing moves
                place = check_inside(new, name.as_posix())
                if not place.exists():
                    place.parent.mkdir(parents=True, exist_ok=True)
                    file.rename(place)
    if [file.name for file in old.iterdir()] == [".swap"]:
        (old / ".swap").unlink()
        old.rmdir()
