"""Tasks whose workers can be watched, and killed."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from interp.errors import UserError
from interp.runs.store import Store
from interp.runs.study_task import StudyTask


@dataclass(frozen=True)
class Squares:
    """Squares of numbers; of some a worker dies, or raises, and each that is begun leaves a file.

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
        begun = Path(self.folder) / f"{part}"
        times = len(begun.read_text()) if begun.exists() else 0
        with begun.open("a") as file:
            file.write("x")
        time.sleep(0.5 if part in self.slow else self.seconds)
        if times < dict(self.dies).get(part, 0):
            os.kill(os.getpid(), signal.SIGKILL)
        if part in self.wrong:
            raise UserError(f"no square of {part}")
        return part * part, opened["opened"]


class Models(StudyTask):
    """Opens a study's model by its name, and says where runs are looked up."""

    def opened(self):
        return self.config.model

    def made(self, opened, part):
        return str(Store().root)
