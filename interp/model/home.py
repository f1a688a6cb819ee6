"""Where models are kept, and the hash that names a file's content."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

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
