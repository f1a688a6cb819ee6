"""Source code that is installed here: C headers and sources, and the Python library's own.

Found through the running Python (sysconfig, and the packages it imports), never by a fixed path,
so any machine that runs the workbench has some and the workbench ships none.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sysconfig
from pathlib import Path

from ..errors import UserError
from .task_files import LANGUAGES

SMALL, LARGE = 2_000, 200_000
"""Files of fewer or more bytes are passed over: stubs, and tables."""
_C_PACKAGES = ("numpy", "numba", "pandas", "scipy", "sklearn", "pyarrow")
"""Packages that install C next to their Python, where they are there."""
_CPP = re.compile("namespace |template ?<|std::")
"""C++ headers end in .h too; these words are none of C's."""
_NOT_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
_NOT_LIBRARY |= {"encodings", "pydoc_data"}


def source_files(language: str) -> list[Path]:
    """Files of a language ('C' or 'Python'), all different, in a fixed order.

    Raises:
        UserError: another language, or no files.
    """
    if language not in LANGUAGES:
        raise UserError(f"'{language}' is not a language of code here: choose C or Python")
    files = _c() if language == "C" else _python()
    kept = sorted({path for path in files if SMALL < path.stat().st_size < LARGE})
    # packages install the same header twice; of two copies one could be trained on, one held out
    kept = list({hashlib.sha256(path.read_bytes()).digest(): path for path in kept}.values())
    if not kept:
        raise UserError(f"no {language} source code is installed here: install Python's headers")
    return kept


def fingerprint(language: str) -> str:
    """sha256 over the files' names and sizes."""
    files = (f"{path.name}:{path.stat().st_size}" for path in source_files(language))
    return hashlib.sha256("\n".join(files).encode()).hexdigest()


def text(path: Path) -> str:
    """A source file's text; bytes that are no UTF-8 are replaced."""
    return path.read_text(encoding="utf-8", errors="replace")


def _c() -> list[Path]:
    paths = sysconfig.get_paths()
    roots = {Path(paths["include"]), Path(paths["platinclude"])}
    for package in _C_PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            roots.add(Path(spec.origin).parent)
    files = (path for root in sorted(roots) for path in root.rglob("*.[ch]") if path.is_file())
    return [path for path in files if not _CPP.search(text(path))]


def _python() -> list[Path]:
    root = Path(sysconfig.get_paths()["stdlib"])
    return [
        path
        for path in root.rglob("*.py")
        if not _NOT_LIBRARY & set(path.relative_to(root).parts)
        and not path.name.startswith("_sysconfigdata")
    ]
