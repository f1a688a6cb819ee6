"""Where models are kept, their small files and the hash that names a file's content."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from ..errors import UserError


def home() -> Path:
    """Where models are kept: $INTERP_HOME, or the platform's cache folder."""
    chosen = os.environ.get("INTERP_HOME")
    return Path(chosen) if chosen else user_cache_path("interp")


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
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"{path.parent} is no model folder: it has no {path.name}") from error
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: fetch it again")
    return content
