"""Damaged files and what the workbench makes of them: an answer, or one line; nothing else.

A `Target` is something that people open: the files, which of them are damaged, and the command that
reads them. `fuzz` damages, runs and counts.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .mutate import damaged

SECONDS, PATIENCE = 10.0, 60.0
"""A call hangs that takes more seconds of a processor, or more by the clock: the machine may have
other work."""
MOST_BYTES = 1 << 30
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Target:
    """
    Args:
        name: what is damaged, for people.
        make: writes the sound files into an empty folder.
        files: globs, within that folder, of the files to damage.
        command: arguments of `interp` in that folder; with `call`, of that function.
        call: `module:function`, which takes the command as a list.
        sound: whether the undamaged files give an answer; else one line, as for a refused kind.
        needs: modules that the call imports, which the server imports once.
    """

    name: str
    make: Callable[[Path], None]
    files: tuple[str, ...]
    command: tuple[str, ...]
    call: str = "interp.cli:main"
    sound: bool = True
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How a call ended: `kind` is answer, line, traceback, hang, memory or signal."""

    kind: str
    out: str
    err: str

    @classmethod
    def of(cls, answer: dict) -> Outcome:
        return cls(_kind(answer), answer["out"], answer["err"])


def _kind(answer: dict) -> str:
    lines = answer["err"].strip().splitlines()
    if answer["hung"] or answer["busy"] > SECONDS:
        return "hang"
    if answer["bytes"] > MOST_BYTES or "MemoryError" in answer["err"]:
        return "memory"
    if answer["code"] < 0:
        return "signal"
    if answer["code"] == 0:
        return "answer"
    said = [line for line in lines if line.startswith("interp: ")]
    clean = answer["code"] == 2 and len(said) == 1 and lines[-1] == said[0]
    return "line" if clean and "Traceback" not in answer["err"] else "traceback"


class Server:
    """A process that has imported what is heavy and runs each call in a child of its own.

    Args:
        also: further modules that it imports.
    """

    def __init__(self, *also: str) -> None:
        environment = {
            **os.environ,
            "INTERP_HOME": "home",  # in the folder of each call: nothing of the user's is read
            "INTERP_RUNS": "runs",
            "HF_HUB_OFFLINE": "1",
            "PIP_NO_INDEX": "1",  # a command that names no model would fetch the default one
            "OMP_NUM_THREADS": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.server", *also],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._read() == "ready\n"

    def run(
        self,
        command: Sequence[str],
        folder: Path,
        call: str = "interp.cli:main",
        needs: Sequence[str] = (),
        **environment: str,
    ) -> Outcome:
        """Run a command of `interp`, or a function, in a folder."""
        return Outcome.of(self.ask(command, folder, call, PATIENCE, needs, **environment))

    def ask(
        self,
        arguments: Sequence[Any],
        folder: Path,
        call: str,
        seconds: float,
        needs: Sequence[str] = (),
        **environment: str,
    ) -> dict[str, Any]:
        """What `server.serve` answers; after `seconds` the child is killed.

        Args:
            needs: modules that the server imports first, if it has not.
        """
        request = {
            "needs": list(needs),
            "call": call,
            "arguments": [list(arguments)],
            "folder": str(folder),
            "seconds": seconds,
            "environment": environment,
        }
        assert self.process.stdin
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._read())
        return answer

    def _read(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline()

    def close(self) -> None:
        self.process.communicate()


@dataclass
class Counts:
    """How calls ended, and those that ended badly: seed, kind and the end of what was printed."""

    kinds: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        names = ("answer", "line", "traceback", "hang", "memory", "signal")
        return ", ".join(f"{name} {self.kinds[name]}" for name in names)


def fuzz(server: Server, target: Target, seeds: Sequence[int], folder: Path) -> Counts:
    """Damage a target's files once a seed, run its command, and count how it ends."""
    sound = folder / "sound"
    sound.mkdir()
    target.make(sound)
    counts = Counts()
    outcome = server.run(target.command, _fresh(sound), target.call, target.needs)
    expected = "answer" if target.sound else "line"
    assert outcome.kind == expected, f"{target.name}, sound: {outcome.kind}\n{outcome.err}"
    for seed in seeds:
        case = _fresh(sound)
        what = _damage(case, target, seed)
        outcome = server.run(target.command, case, target.call, target.needs)
        counts.kinds[outcome.kind] += 1
        if outcome.kind not in ("answer", "line"):
            counts.bad.append(
                f"{target.name} seed {seed}: {outcome.kind} ({what})\n{outcome.err[-1500:]}"
            )
    return counts


def _fresh(sound: Path) -> Path:
    case = sound.with_name("case")
    shutil.rmtree(case, ignore_errors=True)
    shutil.copytree(sound, case, symlinks=True)
    return case


def _damage(case: Path, target: Target, seed: int) -> str:
    """Damage one of the files; its name and how."""
    rng = random.Random(f"{target.name} {seed}")
    path = rng.choice(sorted(_files(case, target)))
    content, how = damaged(path.read_bytes(), path.suffix, rng)
    path.write_bytes(content)
    return f"{path.name}: {how}"


def _files(case: Path, target: Target) -> Iterator[Path]:
    for glob in target.files:
        yield from (path for path in case.glob(glob) if path.is_file())
