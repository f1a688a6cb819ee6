"""Which models and files may be opened: all, or only some where the app is served to others."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from interp.data import FOLDER as SHIPPED

from ..errors import UserError
from ..plain_path import found, plain_path
from .files import home
from .remote_store import is_remote

FOLDERS = "INTERP_MODEL_FOLDERS"
"""The variable that limits them: folders, with os.pathsep between them."""
MEMORY = "INTERP_APP_MEMORY"
"""The variable with how many GiB of them the app keeps at most; `interp app --memory` sets it."""

TEXTS = {
    *("prompt", "prompts", "counterfactual", "text", "texts", "context", "query", "target"),
    *("against", "word", "words", "told", "prior", "concepts", "groups", "source", "name"),
    "device",
}
"""Settings of studies that are read as text, never as the name of a file."""
_PLACE = re.compile(r"[/\\:~]|^\.")
"""What a name has that leads to a file, or to a file on the hub (release:sae_id, org/name)."""


def check_is_allowed(name: str, known: Collection[str]) -> None:
    """Refuse a model that is neither known by name nor in a folder of `$INTERP_MODEL_FOLDERS`, if
    that is set: what a visitor of the app types opens no other folder, asks no store and fetches no
    other model.

    Raises:
        UserError: it is not allowed, whether there is such a model or not.
    """
    if not limited() or name in known:
        return
    roots = [home() / "models", *_folders()]
    if is_remote(name) or not any(_is_inside(name, root) for root in roots):
        raise UserError(
            f"the model '{name}' is not allowed here: take one of {', '.join(known)}; whoever "
            "serves the app allows a folder of models with `interp app --models FOLDER`"
        )


def limited() -> bool:
    """Whether the app is served to others."""
    return FOLDERS in os.environ


def check_settings_allowed(values: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse settings of a study that name a file outside of what may be opened, if that is
    limited: the store, what comes with the workbench, and the folders of `$INTERP_MODEL_FOLDERS`.

    What is no text (`TEXTS`) may be the name of a file: a setting that is new is one, too.

    Args:
        values: by the settings' names.
        known: models and networks that go by a name.

    Raises:
        UserError: it names the setting.
    """
    if not limited():
        return
    for name, value in values.items():
        texts = [each for each in _each(value) if isinstance(each, str)]
        if name == "model":
            for text in filter(None, texts):
                check_is_allowed(text, known)
        elif name not in TEXTS:
            for text in texts:
                _check_place(name, text)


def check_words_allowed(words: Sequence[str]) -> None:
    """`check_settings_allowed` of a command, of which nobody says what is text.

    Raises:
        UserError: it names the word.
    """
    if limited():
        for word in words:
            _check_place("a word of the command", word)


def check_place_allowed(what: str, place: str | Path) -> None:
    """Refuse a folder or file outside of what may be opened, if that is limited, whether there is
    one or not.

    Args:
        what: is to be opened, "directions".

    Raises:
        UserError: it is not allowed.
    """
    if limited() and not any(_is_inside(str(place), root) for root in [SHIPPED, *_folders()]):
        raise UserError(
            f"{what} cannot be opened from '{place}' here: the app is served to others, and opens "
            "only files of the store, the workbench and the folders after `interp app --models`"
        )


def _each(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple | list) else [value]


def _check_place(name: str, text: str) -> None:
    for part in filter(None, re.split("[=,]", text)):
        roots = [SHIPPED, *_folders()]
        if (_PLACE.search(part) or found(part)) and not any(_is_inside(part, r) for r in roots):
            raise UserError(
                f"{name} cannot be '{text}' here: the app is served to others, and opens only "
                "files of the store, the workbench and the folders after `interp app --models`"
            )


def _folders() -> list[Path]:
    return [Path(each) for each in os.environ.get(FOLDERS, "").split(os.pathsep) if each]


def _is_inside(name: str, root: Path) -> bool:
    """Whether a path leads into a folder, links followed."""
    try:
        return plain_path(name).resolve().is_relative_to(root.resolve())
    except (UserError, RuntimeError):  # no name of a file; a circle of links
        return False
