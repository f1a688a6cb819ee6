"""Tasks whose workers can be watched, and killed."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from interp.errors import UserError
from interp.progress import Advance
from interp.runs.parted_tables import Made, parted_tables
from interp.runs.store import Store
from interp.runs.study import PartedStudy, run_or_load
from interp.runs.study_task import StudyTask

ROOT = Path(__file__).parents[2]


def begun(folder, part="*"):
    """The process that each part was begun by, as often as it was."""
    noted = (file.read_text().split() for file in Path(folder).glob(f"{part}"))
    return [int(pid) for pids in noted for pid in pids]


class Heard(Advance):
    """What a progress hears of its workers: how many are alive, how many parts are made again."""

    def __init__(self):
        self.workers = []

    def made_by(self, workers, again):
        self.workers.append((workers, again))


def ended(command, sent, folder):
    """Send a signal to a process once each of two parts is begun; it ends, and so do its workers.
    Returns what it printed as errors."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    until(lambda: len(begun(folder)) == 2)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=120)
    until(lambda: not any(map(_lives, begun(folder))))
    return errors


def until(true):
    """Wait for something."""
    late = time.monotonic() + 120
    while not true():
        assert time.monotonic() < late
        time.sleep(0.02)


def _lives(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


LONG = """
import sys
from interp.runs.workers import map_parts
from interp.runs.workers_task import Workers
from tests.runs.parted import Squares

list(map_parts(Squares(sys.argv[1], seconds=60), range(9), Workers.of(sys.argv[2])))
"""
"""A program whose parts take a minute each."""


@dataclass(frozen=True)
class Squares:
    """Squares of numbers; of some a worker dies, or raises, and each that is begun is noted.

    Args:
        dies: number -> how often its worker is killed.
        hangs: numbers that take a minute the first time.
        size: bytes that come with each.
    """

    folder: str
    dies: tuple[tuple[int, int], ...] = ()
    wrong: tuple[int, ...] = ()
    fingerprint: str = "mine"
    seconds: float = 0.0
    slow: tuple[int, ...] = ()
    hangs: tuple[int, ...] = ()
    size: int = 0

    def open(self):
        if self.fingerprint != "mine":
            raise UserError("other weights here")
        return {"opened": os.getpid()}

    def make(self, opened, part):
        times = len(begun(self.folder, part))
        with (Path(self.folder) / f"{part}").open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.5 if part in self.slow else self.seconds)
        if part in self.hangs and not times:
            time.sleep(60)
        if times < dict(self.dies).get(part, 0):
            os.kill(os.getpid(), signal.SIGKILL)
        if part in self.wrong:
            raise UserError(f"no square of {part}")
        return part * part, opened["opened"], bytes(self.size)


@dataclass(frozen=True)
class SquaresStudy(PartedStudy):
    """A table of squares, by several workers; nothing in it needs torch."""

    STUDY: ClassVar[str] = "test.squares"
    VERSION: ClassVar[int] = 1
    folder: str
    hangs: tuple[int, ...] = field(default=(), metadata={"key": False})

    def fingerprints(self):
        return {}

    def check(self):
        pass

    def run(self, out):
        task = Rows(self.folder, hangs=self.hangs)
        parted_tables(out, ["squares"], task, range(9), self.spread, "squares", "numbers")
        return {}


class Rows(Squares):
    def make(self, opened, part):
        return Made.of({}, [{"number": part, "square": super().make(opened, part)[0]}])


KILLED = """
import sys
from pathlib import Path
from interp.runs.store import Store
from interp.runs.study import run_or_load
from tests.runs.parted import SquaresStudy

study = SquaresStudy(sys.argv[1], hangs=(5, 6, 7, 8), workers=sys.argv[2])
run_or_load(study, Store(Path(sys.argv[3])))
"""


def resumed_after_a_kill(workers, tmp_path):
    """Kill a process that has had five of nine parts made, and has two under way; the same study
    goes on here, makes no finished part again, and has each row once."""
    noted, store = tmp_path / "noted", Store(tmp_path / "store")
    noted.mkdir()
    given = [str(noted), workers, str(store.root)]
    asking = subprocess.Popen([sys.executable, "-c", KILLED, *given], cwd=ROOT)
    until(lambda: len(list(store.root.rglob("*.parquet"))) == 5 and len(begun(noted)) == 7)
    asking.kill()
    asking.wait()
    until(lambda: not any(map(_lives, begun(noted))))
    run = run_or_load(SquaresStudy(str(noted), workers=workers), store)
    assert [len(begun(noted, n)) for n in range(9)] == [1, 1, 1, 1, 1, 2, 2, 1, 1]
    whole = run_or_load(SquaresStudy(str(noted)), Store(tmp_path / "whole"))
    assert run.manifest["files"] == whole.manifest["files"]
    assert run.table("squares")["square"].tolist() == [n * n for n in range(9)]


class Models(StudyTask):
    """Opens a study's model by its name, and says where runs are looked up."""

    def opened(self):
        return self.config.model

    def made(self, opened, part):
        return str(Store().root)
