"""Which models may be opened: all, or only some where the app is served to others."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from ..errors import UserError
from ..plain_path import plain_path
from .files import home

FOLDERS = "INTERP_MODEL_FOLDERS"
"""The variable that limits them: folders, with os.pathsep between them."""
MEMORY = "INTERP_APP_MEMORY"
"""The variable with how many GiB of them the app keeps at most; `interp app --memory` sets it."""


def check_is_allowed(name: str, known: Collection[str]) -> None:
    """Refuse a model that is neither known by name nor in a folder of `$INTERP_MODEL_FOLDERS`, if
    that is set: what a visitor of the app types opens no other folder and fetches no other model.

    Raises:
        UserError: it is not allowed, whether there is such a model or not.
    """
    folders = os.environ.get(FOLDERS)
    if folders is None or name in known:
        return
    roots = [home() / "models", *map(Path, filter(None, folders.split(os.pathsep)))]
    if not any(_is_inside(name, root) for root in roots):
        raise UserError(
            f"the model '{name}' is not allowed here: take one of {', '.join(known)}; whoever "
            "serves the app allows a folder of models with `interp app --models FOLDER`"
        )


def _is_inside(name: str, root: Path) -> bool:
    """Whether a path leads into a folder, links followed."""
    try:
        return plain_path(name).resolve().is_relative_to(root.resolve())
    except (UserError, RuntimeError):  # no name of a file; a circle of links
        return False
