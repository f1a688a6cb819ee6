"""Studies that are killed, at random moments and at chosen steps, and what is there in the end.

The same commands, started again as often as it takes, leave what an unbroken run leaves: the same
files, byte for byte, in manifests all but times and memory, and nothing beside them.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interp.directions.directions import stored_directions
from interp.runs.store import Store

from ..fuzz.harness import Server
from .studies import LIGHT, Resumable

CHILD = "tests.kills.child"
LONGEST = 120.0
"""Seconds after which an attempt hangs."""
SWAP = 12
"""Steps of the move into another run's place, about."""
TIMES = ("wall_s", "finished", "peak_memory_bytes", "seal", "seconds")
"""Entries of a manifest that differ between two runs of the same."""
OWN_METRICS = ("atlas_s", "layers_computed", "layers_resumed")
"""Metrics that tell how a run was made."""
KEPT = ("runs", "home/models", "made")
"""Where studies leave what stays."""


@dataclass
class Counts:
    kills: Counter[str] = field(default_factory=Counter)
    """By mode: moment, step, beside."""
    attempts: int = 0
    kept: int = 0
    """Finished parts and checkpoints that the attempts which came to the end found."""
    redone: int = 0
    """How many of them these wrote again."""

    def __str__(self) -> str:
        by_mode = ", ".join(f"{mode} {count}" for mode, count in sorted(self.kills.items()))
        return (
            f"{self.kills.total()} kills ({by_mode}) in {self.attempts} attempts; "
            f"{self.kept} parts found, {self.redone} of them written again"
        )


class Failure(Exception):
    """What a study left is not what an unbroken run leaves."""


class Killing:
    """One study: its inputs, its unbroken run, and trials.

    Args:
        folder: an empty one; every trial runs in its `case/`, so that paths are the same.
    """

    def __init__(self, server: Server, study: Resumable, folder: Path) -> None:
        self.server, self.study = server, study
        self.sound, self.case = folder / "sound", folder / "case"
        self.whole = folder / "whole"
        self.counts = Counts()
        self.sound.mkdir()
        study.make(self.sound)
        shutil.copytree(self.sound, self.case)
        answer = self._ask("start", [False, 0])
        self.seconds, self.steps = answer["seconds"], answer["said"]["steps"]
        self.case.rename(self.whole)
        self.left = contents(self.whole)
        assert self.left, f"{study.name} leaves nothing"

    def trial(self, seed: int) -> None:
        """Kill the study a few times, let it end, and compare.

        Raises:
            Failure: it ends otherwise than with what an unbroken run leaves.
        """
        rng = random.Random(f"{self.study.name} {seed}")
        done = self.study.again and rng.random() < 0.3
        self._begin(self.whole if done else self.sound)
        story = ["begun from a finished run"] if done else []
        remade = False
        try:
            for number in range(rng.randint(1, 4)):
                fresh = self.study.again and rng.random() < (0.8 if done else 0.15)
                remade |= fresh
                story.append(self._attempt(rng, fresh, number))
                self._look()
            self._finish(False)
            if remade:  # what was begun with --fresh is finished with it
                self._finish(True)
            self._compare()
        except Failure as failure:
            told = "; ".join(story)
            raise Failure(f"{self.study.name} seed {seed} ({told}): {failure}") from failure

    def killed_at(self, step: int, fresh: bool = False) -> bool:
        """Kill the study at one step, let it end, and compare; whether it has so many steps.

        Args:
            fresh: a finished run is there, and the study is made afresh.

        Raises:
            Failure: it ends otherwise than with what an unbroken run leaves.
        """
        self._begin(self.whole if fresh else self.sound)
        try:
            answer = self._ask("start", [fresh, step])
            self._count(answer, "step")
            self._look()
            self._finish(False)
            if fresh:
                self._finish(True)
            self._compare()
        except Failure as failure:
            how = "with --fresh " if fresh else ""
            raise Failure(f"{self.study.name} {how}killed at step {step}: {failure}") from failure
        return bool(answer["code"])

    def _attempt(self, rng: random.Random, fresh: bool, number: int) -> str:
        """Start and kill; what was done, for people."""
        mode = rng.choice(("moment", "step", "step") if number else ("moment", "step", "beside"))
        how = " --fresh" if fresh else ""
        if mode == "moment":
            seconds = rng.uniform(0.02, self.seconds)
            self._count(self._ask("start", [fresh, 0], seconds), mode)
            return f"{seconds:.3f} s{how}"
        if mode == "step":
            steps = self.steps + (SWAP if fresh else 0)
            step = rng.randint(1, max(1, steps // 2) if number else steps)
            self._count(self._ask("start", [fresh, step]), mode)
            return f"step {step}{how}"
        seconds = rng.uniform(0.02, self.seconds)
        answer = self._ask("beside", [fresh, seconds])
        self.counts.kills[mode] += answer["said"].get("killed", False)
        return f"beside another, {seconds:.3f} s{how}"

    def _begin(self, source: Path) -> None:
        shutil.rmtree(self.case, ignore_errors=True)
        shutil.copytree(source, self.case, symlinks=True)

    def _ask(self, call: str, given: list[Any], seconds: float = LONGEST) -> dict[str, Any]:
        """One attempt; beside the server's answer `said`, the child's own.

        Raises:
            Failure: it ends neither well nor killed.
        """
        self.counts.attempts += 1
        given = [self.study.name, *given]
        answer = self.server.ask(given, self.case, f"{CHILD}:{call}", seconds, (CHILD, *LIGHT))
        lines = [json.loads(x) for x in answer["out"].splitlines() if x.startswith("{")]
        answer["said"] = {key: value for line in lines for key, value in line.items()}
        # of two processes that start the same run one may have to leave it to the other
        refused = call == "beside" and "another process is" in answer["err"]
        if seconds == LONGEST and answer["hung"]:
            raise Failure(f"it hangs: {answer['err'][-1500:]}")
        if answer["code"] not in (0, -signal.SIGKILL) and not refused:
            raise Failure(f"it ends with {answer['code']}: {answer['err'][-3000:]}")
        return answer

    def _count(self, answer: dict[str, Any], mode: str) -> None:
        self.counts.kills[mode] += answer["code"] == -signal.SIGKILL

    def _finish(self, fresh: bool) -> None:
        answer = self._ask("start", [fresh, 0])
        if answer["code"]:
            raise Failure(f"it is killed, and not by us: {answer['err'][-1500:]}")
        if not fresh:
            self.counts.kept += answer["said"]["kept"]
            self.counts.redone += answer["said"]["redone"]

    def _look(self) -> None:
        """What a reader sees of a run that was killed: whole runs, or none."""
        for run in Store(self.case / "runs").runs():
            for name in run.files:
                run.part(name)

    def _compare(self) -> None:
        made = contents(self.case)
        if made.keys() != self.left.keys():
            missing, more = self.left.keys() - made.keys(), made.keys() - self.left.keys()
            raise Failure(f"missing: {sorted(missing)}; left over: {sorted(more)}")
        differing = [name for name, content in self.left.items() if made[name] != content]
        if differing:
            told = _difference(self.left[differing[0]], made[differing[0]])
            raise Failure(f"other contents: {differing}; {told}")
        runs = [Store(folder / "runs").runs() for folder in (self.whole, self.case)]
        if len(runs[0]) != len(runs[1]):
            raise Failure(f"{len(runs[1])} runs are listed, not {len(runs[0])}")
        for run in runs[1]:
            for name in run.files:
                run.part(name)
        found, wanted = (
            [p.relative_to(folder) for p in stored_directions(Store(folder / "runs"))]
            for folder in (self.case, self.whole)
        )
        if sorted(found) != sorted(wanted):
            raise Failure(f"directions are listed in {found}, not {wanted}")


def contents(folder: Path) -> dict[str, Any]:
    """What there is by name: bytes of a file, of a manifest what does not depend on the time; of
    notes and other things in `home/` only those that a stop left behind."""
    found: dict[str, Any] = {}
    for place in KEPT:
        for path in sorted((folder / place).rglob("*")):
            name = path.relative_to(folder).as_posix()
            found[name] = _content(path) if path.is_file() else None
    passing = [p for p in (folder / "home").rglob(".*") if not p.name.endswith(".lock")]
    passing += (folder / "checkpoints").glob(".*")
    return found | {p.relative_to(folder).as_posix(): None for p in passing}


def _content(path: Path) -> Any:
    if path.name == "manifest.json" and (path.parent / "run.json").exists():
        manifest = json.loads(path.read_text())
        metrics = {k: v for k, v in manifest["metrics"].items() if k not in OWN_METRICS}
        return {k: v for k, v in manifest.items() if k not in TIMES} | {"metrics": metrics}
    if path.name == "card.json":  # of a trained model: how long it took
        card = json.loads(path.read_text())
        return {k: v for k, v in card.items() if "seconds" not in k}
    return path.read_bytes()


def _difference(wanted: Any, made: Any) -> str:
    if isinstance(wanted, dict):
        names = [k for k in wanted.keys() | made.keys() if wanted.get(k) != made.get(k)]
        return str({k: (wanted.get(k), made.get(k)) for k in names})[:1500]
    return f"{len(made)} bytes, not {len(wanted)}"
