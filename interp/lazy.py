"""Names of a package that are imported when they are first asked for (PEP 562)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy(
    package: str, where: Callable[[], Mapping[str, str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's `__getattr__` and `__dir__`.

    `where()` has the module of each public name; a module that is itself public has its own.
    """

    def get(name: str) -> Any:
        module = None if name.startswith("_") else where().get(name)
        if module is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        loaded = import_module(module, package)
        return loaded if module.endswith(f".{name}") else getattr(loaded, name)

    return get, lambda: sorted(where())
