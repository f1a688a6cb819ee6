"""What a child process runs: a study, in which it kills itself at a step if it is told to.

Steps are what changes the disk in the study's folder (opening for writing, renaming, removing,
making folders, fsync), and the writing of tables and tensors, after which a file is cut short as
well. Python's audit events tell of the first.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from interp.runs import parts, writer

from .studies import STUDIES, small

_EVENTS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def start(given: list[Any]) -> None:
    """Run a study; print how many steps it made, how many parts it found, and wrote again.

    Args:
        given: name, whether it is made afresh, and the step to die at (0: none).
    """
    name, fresh, at = given
    small(STUDIES[name].constants)
    redone = _Redone()
    steps = Steps(at)
    STUDIES[name].start(fresh)
    said = {"steps": steps.made, "kept": len(redone.there), "redone": len(redone.again)}
    print(json.dumps(said), flush=True)


def beside(given: list[Any]) -> None:
    """Run a study while another process, which dies, runs it too.

    Args:
        given: name, whether afresh, and the seconds after which the other one is killed.
    """
    name, fresh, seconds = given
    other = os.fork()
    if not other:
        try:
            small(STUDIES[name].constants)
            STUDIES[name].start(fresh)
        finally:
            os._exit(0)
    killing = threading.Timer(seconds, os.kill, (other, signal.SIGKILL))
    killing.start()
    try:
        start([name, fresh, 0])
    finally:
        _, status = os.waitpid(other, 0)
        killing.cancel()
        print(json.dumps({"killed": os.waitstatus_to_exitcode(status) == -signal.SIGKILL}))


class Steps:
    """Counts the steps of this process, and kills it at one of them."""

    def __init__(self, at: int) -> None:
        self.made, self._at = 0, at
        self._root = str(Path.cwd())
        self._fsync = os.fsync
        os.fsync = self._synced  # type: ignore[assignment]  # no audit event tells of it
        for module, name in ((parts, "write_table"), (writer, "save_tensors")):
            _in_every_module(getattr(module, name), self._torn(getattr(module, name)))
        sys.addaudithook(self._heard)

    def _heard(self, event: str, args: tuple[Any, ...]) -> None:
        if (
            event == "open" and isinstance(args[2], int) and args[2] & _WRITING
        ) or event in _EVENTS:
            self._count(args[0])

    def _count(self, path: Any) -> None:
        if isinstance(path, int):
            return
        text = os.fsdecode(path)
        if not text.startswith("/") or text.startswith(self._root):
            self._step()

    def _synced(self, file: int) -> None:
        self._step()
        self._fsync(file)

    def _torn(self, real: Callable[..., None]) -> Callable[..., None]:
        def write(content: Any, path: Path, *more: Any) -> None:
            self._step()
            real(content, path, *more)
            if self.made + 1 == self._at:
                size = path.stat().st_size
                os.truncate(path, random.Random(self._at).randrange(size))
            self._step()

        return write

    def _step(self) -> None:
        self.made += 1
        if self.made == self._at:
            os.kill(os.getpid(), signal.SIGKILL)


class _Redone:
    """The parts of unfinished runs that there are at a start, and which are written again."""

    def __init__(self) -> None:
        begun = [n.parent for n in Path("runs").glob("*/*/run.json")]
        self.there = {
            path.resolve()
            for run in begun
            if not (run / "manifest.json").exists()
            for path in run.rglob("*")
            if path.suffix in (".parquet", ".safetensors")
        }
        self.again: set[Path] = set()
        real, found = writer.RunWriter.part, self

        def part(self: writer.RunWriter, name: str) -> Any:
            path = (self.path / name).resolve()
            if path in found.there:
                found.again.add(path)
            return real(self, name)

        writer.RunWriter.part = part  # type: ignore[method-assign]


def _in_every_module(old: object, new: object) -> None:
    """Put a function in the place of another wherever it was imported to."""
    for module in [m for name, m in sys.modules.items() if name.startswith("interp")]:
        for name, value in list(vars(module).items()):
            if value is old:
                setattr(module, name, new)
