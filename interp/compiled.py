"""Where numba keeps the workbench's compiled code: in the user's cache, for every clone.

numba itself keeps it beside the sources, so that each clone compiles anew; and it compiles a
function again when its own file has changed, not when a function that it calls has in another file:
it would silently run the old code. What is kept here goes by the contents of all sources of the
function's package. It is enough to import this module before a function is decorated;
`njit` is numba's own.

numba's files are pickles, as good as code: they are taken from a folder that is the user's own.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from numba import config, njit
from numba.core.caching import CacheImpl, InTreeCacheLocator
from numba.core.registry import cpu_target
from platformdirs import user_cache_path

__all__ = ["mark_of", "njit", "state_of"]

UNUSED = 30 * 24 * 3600
"""Seconds after which what no process has asked for is removed."""


class Kept(InTreeCacheLocator):  # type: ignore[misc]
    """The folder of what one state of a package's sources was compiled to."""

    def __init__(self, function: Callable[..., Any], file: str, base: Path) -> None:
        super().__init__(function, file)  # type: ignore[no-untyped-call]
        self._state = state_of(Path(file).parent)
        self._cache_path = str(base / self._state)

    @classmethod
    def from_function(cls, function: Callable[..., Any], file: str) -> Kept | None:
        """None for a function that is not of the workbench, which numba keeps as ever."""
        return cls.first(function, file) if function.__module__.startswith("interp.") else None

    @classmethod
    def first(cls, function: Callable[..., Any], file: str) -> Kept | None:
        """The first folder that can be written to."""
        for base in (_usual(), _beside(file)):
            found = cls(function, file, base)
            try:
                found.ensure_cache_path()
            except OSError:
                continue
            return found
        return None

    def ensure_cache_path(self) -> None:
        """Make the folder, or say that it was asked for. Raises OSError where that cannot be."""
        path = Path(self._cache_path)
        if not path.is_dir():
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _forget(path.parent)
        if path.stat().st_uid != os.getuid():
            raise PermissionError(f"{path} is somebody else's")
        os.utime(path)
        super().ensure_cache_path()  # type: ignore[no-untyped-call]

    def get_source_stamp(self) -> str:
        return self._state


def mark_of(folder: Path) -> Path | None:
    """A file that says, where it is, that what a package's functions compile to on this processor
    is kept; None where nothing can be."""
    kept = Kept.first(mark_of, str(folder / "__init__.py"))
    processor = "/".join(cpu_target.target_context.codegen().magic_tuple())
    name = hashlib.sha256(processor.encode()).hexdigest()[:16]
    return Path(kept._cache_path) / f"{name}.whole" if kept else None


def _usual() -> Path:
    own: str = config.CACHE_DIR  # type: ignore[attr-defined]
    return Path(own) / "interp" if own else user_cache_path("interp") / "compiled"


def _beside(file: str) -> Path:
    return Path(file).parent / "__pycache__" / "compiled"


def state_of(folder: Path) -> str:
    """A hash of the contents of all sources in a folder."""
    sources = sorted(folder.glob("*.py"))
    return _hashed(tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in sources))


@lru_cache(maxsize=8)
def _hashed(sources: tuple[tuple[Path, int, int], ...]) -> str:
    found = hashlib.sha256()
    for path, _, _ in sources:
        content = path.read_bytes()
        found.update(f"{path.name} {len(content)}\n".encode() + content)
    return found.hexdigest()[:16]


def _forget(base: Path) -> None:
    """Remove what was not asked for in a month: every change of a source makes a new folder."""
    for folder in base.iterdir():
        if folder.stat().st_mtime < time.time() - UNUSED:
            shutil.rmtree(folder, ignore_errors=True)


CacheImpl._locator_classes.insert(0, Kept)  # type: ignore[arg-type]
