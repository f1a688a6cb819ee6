"""Tasks whose workers can be watched, and killed."""

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from interp.errors import UserError
from interp.progress import Advance

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
    while len(pids := begun(folder)) < 2:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=20)
    soon = time.monotonic() + 10
    while any(_lives(pid) for pid in pids):
        assert time.monotonic() < soon, "a worker outlives who asked for it"
        time.sleep(0.02)
    return errors


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
    """

    folder: str
    dies: tuple[tuple[int, int], ...] = ()
    wrong: tuple[int, ...] = ()
    fingerprint: str = "mine"
    seconds: float = 0.0
    slow: tuple[int, ...] = ()

    def open(self):
        if self.fingerprint != "mine":
            raise UserError("other weights here")
        return {"opened": os.getpid()}

    def make(self, opened, part):
        times = len(begun(self.folder, part))
        with (Path(self.folder) / f"{part}").open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.5 if part in self.slow else self.seconds)
        if times < dict(self.dies).get(part, 0):
            os.kill(os.getpid(), signal.SIGKILL)
        if part in self.wrong:
            raise UserError(f"no square of {part}")
        return part * part, opened["opened"]
