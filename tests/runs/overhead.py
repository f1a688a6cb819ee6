"""What the executors cost at parts of one second: `python -m tests.runs.overhead`.

Parts are sleeps, so that nothing but the executor takes time; each row is the median of some
repeats, interleaved, of the time from the first result to the last over the time of the parts.
"""

from __future__ import annotations

import argparse
import statistics
import time

from interp.cli.common import print_markdown
from interp.runs.workers import map_parts
from interp.runs.workers_task import Workers

from .simulated import Sleeps

ROWS = {"in this process": Workers(1), "two processes": Workers(2), "Ray": Workers(0, "auto")}


def seconds_of(workers: Workers, parts: int, folder: str) -> float:
    """From the first result, when the workers are up, to the last."""
    results = map_parts(Sleeps(folder, 1.0), range(parts), workers)
    next(results)
    started = time.monotonic()
    for _ in results:
        pass
    return time.monotonic() - started


def main() -> None:
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", type=int, default=11)
    parser.add_argument("--times", type=int, default=3)
    asked = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in ROWS}
    for _ in range(asked.times):
        for name, workers in ROWS.items():
            at_once = 1 if workers.number == 1 else 2
            with tempfile.TemporaryDirectory() as folder:
                took = seconds_of(workers, asked.parts, folder)
            found[name].append(took / ((asked.parts - 1) / at_once) - 1)
    rows = [[name, f"{statistics.median(over):+.1%}"] for name, over in found.items()]
    print_markdown(["parts of 1 s", "beside the parts themselves"], rows)


if __name__ == "__main__":
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    main()
    ray.shutdown()
