"""A store in memory that counts what is asked of it and can fail; no network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from interp.model import remote_store


class Counted(MemoryFileSystem):
    """fsspec's `memory://` with an ETag, or what else tells versions apart."""

    protocol = "counted"
    store: dict[str, Any] = {}  # noqa: RUF012  as the class above
    pseudo_dirs = [""]  # noqa: RUF012
    read: list[tuple[str, int]] = []  # noqa: RUF012
    """The name and length of each range that was given."""
    asked: list[str] = []  # noqa: RUF012
    """The other calls."""
    fail: Callable[[str, int, int], None] = staticmethod(lambda name, start, end: None)
    """Is called before a range is given, and may raise."""
    says: Callable[[bytes], dict[str, Any]] = staticmethod(
        lambda content: {"ETag": f'"{hashlib.md5(content).hexdigest()}"'}
    )

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = super()._strip_protocol(path.removeprefix("counted://"))
        return stripped

    def cat_file(self, path: str, start: Any = None, end: Any = None, **_: Any) -> bytes:
        name = path.rpartition("/")[2]
        type(self).fail(name, start, end)
        content: bytes = super().cat_file(path, start=start, end=end)
        self.read.append((name, len(content)))
        return content

    def ls(self, path: str, detail: bool = True, **_: Any) -> Any:
        self.asked.append(f"ls {path}")
        entries = super().ls(path, detail=True)
        return [self._with(entry) for entry in entries] if detail else entries

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        self.asked.append(f"info {path}")
        return self._with(super().info(path))

    def _with(self, entry: dict[str, Any]) -> dict[str, Any]:
        content = self.store[entry["name"]].getvalue() if entry["type"] == "file" else b""
        return {**entry, **type(self).says(content)}

    def put(self, folder: Path, place: str) -> None:
        """Hold a folder's files."""
        for file in folder.iterdir():
            self.pipe_file(f"{place}/{file.name}", file.read_bytes())


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, own_home: Path) -> Iterator[Counted]:
    """The store of addresses that begin with counted://, empty, for one test."""
    monkeypatch.setitem(_registry, "counted", Counted)
    scheme = remote_store.Scheme("fsspec", tuple, "log in")
    monkeypatch.setitem(remote_store.SCHEMES, "counted", scheme)
    monkeypatch.setattr(remote_store, "WAITS", (0.0, 0.0, 0.0))
    for name in ("fail", "says"):
        monkeypatch.setattr(Counted, name, Counted.__dict__[name])
    files: Counted = fsspec.filesystem("counted")
    yield files
    for held in (Counted.store, Counted.read, Counted.asked):
        held.clear()
