"""What an atlas takes beside its projections: `python -m tests.neurons.whole_job`.

    python -m tests.neurons.whole_job --model smollm2-135m --times 3
    python -m tests.neurons.whole_job --compile --times 1           # as in a first run on a machine

The whole job (`run_or_load` of an atlas: reading, whitening, projecting, coherence, tables, files
on disk, search index) and the bare projections of the same vectors are made in turn in one process;
each row is the median of their ratios. What a new process takes before it begins, by a command that
imports as much, is added in a row of its own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

IMPORTS = "import interp.cli.neurons, interp.neurons.making, interp.kernels.screened"


class Taken(NamedTuple):
    """Seconds, on the clock and of all processors."""

    wall: float
    cpu: float


def timed(work: Callable[[], object]) -> Taken:
    wall, cpu = time.monotonic(), sum(os.times()[:4])
    work()
    return Taken(time.monotonic() - wall, sum(os.times()[:4]) - cpu)


def projections(model: str, k: int) -> Taken:
    """Of every part of the atlas, the call of the kernel alone."""
    from interp.model.readout import levelled
    from interp.neurons.atlas import AtlasConfig
    from interp.neurons.making import Slices

    config = AtlasConfig(model=model, k=k)
    task, kept = Slices.of(config).open()
    wall = cpu = 0.0
    for layer in range(config.stored_weights.spec.n_layers):
        for own in config.slices(layer):
            for piece, random in zip(own.pieces, own.random, strict=True):
                vectors = levelled(task._vectors(layer, piece, random)[0])[0]
                taken = timed(lambda x=vectors: project(x, kept._readout.rows, k))
                wall, cpu = wall + taken.wall, cpu + taken.cpu
    return Taken(wall, cpu)


def project(vectors: object, rows: object, k: int) -> object:
    from interp.kernels import project_topk

    return project_topk(vectors, rows, k)  # type: ignore[arg-type]


def whole(model: str, k: int) -> Taken:
    """An atlas in a new store."""
    from interp.neurons.atlas import AtlasConfig
    from interp.runs.store import Store
    from interp.runs.study import run_or_load

    with tempfile.TemporaryDirectory() as store:
        return timed(lambda: run_or_load(AtlasConfig(model=model, k=k), Store(Path(store))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="begin with no compiled code")
    asked = parser.parse_args()
    os.environ["OMP_WAIT_POLICY"] = "passive"  # as the command has it
    with tempfile.TemporaryDirectory() as none:
        if asked.compile:
            os.environ["NUMBA_CACHE_DIR"] = none
        started = timed(lambda: subprocess.run([sys.executable, "-c", IMPORTS], check=True))
        found = []
        for _ in range(asked.times):
            job = whole(asked.model, asked.k)
            found.append((job, projections(asked.model, asked.k)))
    report(found, started)


def report(found: list[tuple[Taken, Taken]], started: Taken) -> None:
    """Print the medians."""
    from interp.cli.common import print_markdown

    def row(name: str, taken: Callable[[Taken, Taken], Taken]) -> list[str]:
        """What `taken` makes of a job and its projections, beside the projections."""
        both = [(taken(*each), each[1]) for each in found]
        ratios = sorted(one.wall / bare.wall for one, bare in both)
        return [
            name,
            f"{statistics.median(one.wall for one, _ in both):.1f}",
            f"{statistics.median(one.cpu for one, _ in both):.1f}",
            f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
            f"{statistics.median(one.cpu / bare.cpu for one, bare in both):.2f}",
        ]

    print_markdown(
        ["", "seconds", "of processors", "ratio", "of processors"],
        [
            row("the projections alone", lambda _, bare: bare),
            row("the whole job", lambda job, _: job),
            row(
                "with the start of a process",
                lambda job, _: Taken(job.wall + started.wall, job.cpu + started.cpu),
            ),
        ],
    )


if __name__ == "__main__":
    main()
