"""Eight nodes, each failing once an hour, which is a minute here: `python -m tests.runs.simulated`.

Parts are sleeps that count themselves. Printed are the time, what was made again and what is lost
(nothing may be), beside the arithmetic: each failure costs half a part on average, and its node's
time until it is back.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from interp.cli.common import print_markdown, say
from interp.runs.workers import map_parts
from interp.runs.workers_task import Workers

RAY = Workers(0, "auto")
NODES, HOUR, BACK = 8, 60.0, 5.0
"""Nodes; seconds that stand for an hour; seconds until a node is back."""


@dataclass(frozen=True)
class Sleeps:
    """A part is a sleep, and leaves a mark each time that it is begun."""

    folder: str
    seconds: float

    def open(self) -> None:
        return None

    def make(self, opened: None, part: int) -> int:
        with (Path(self.folder) / str(part)).open("a") as file:
            file.write("x")
        time.sleep(self.seconds)
        return part


def failing(cluster: Cluster, seed: int, job: Future[Any]) -> int:
    """Kill nodes as often as the rate says and bring each back, until the job is done; returns how
    many. Ray adds nodes from the main thread only."""
    chance, failures = random.Random(seed), 0
    back: list[float] = []
    following = time.monotonic() + chance.expovariate(NODES / HOUR)
    while not job.done():
        time.sleep(0.05)
        if back and time.monotonic() > back[0]:
            cluster.add_node(num_cpus=1)
            back.pop(0)
        if time.monotonic() > following:
            nodes = cluster.list_all_nodes()[1:]
            cluster.remove_node(chance.choice(nodes), allow_graceful=False)
            failures += 1
            back.append(time.monotonic() + BACK)
            following = time.monotonic() + chance.expovariate(NODES / HOUR)
    for _ in back:
        cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    return failures


def job(cluster: Cluster, parts: int, seconds: float, seed: int | None) -> list[str]:
    """A row of the table: one job, undisturbed or with failures."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as threads:
        task, started = Sleeps(folder, seconds), time.monotonic()
        made = threads.submit(lambda: [n for n, _ in map_parts(task, range(parts), RAY)])
        failures = 0 if seed is None else failing(cluster, seed, made)
        found = made.result()
        took = time.monotonic() - started
        begun = sum(len(file.read_text()) for file in Path(folder).iterdir())
    expected = (parts * seconds + failures * (seconds / 2 + BACK)) / NODES
    lost, twice = len(set(range(parts)) - set(found)), len(found) - len(set(found))
    numbers = (failures, f"{took:.1f}", f"{expected:.1f}", begun - parts, lost, twice)
    return [f"{parts} of {seconds:g} s", *map(str, numbers)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=1.0)
    asked = parser.parse_args()
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    for _ in range(NODES):
        cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    list(map_parts(Sleeps(tempfile.mkdtemp(), 0.1), range(2 * NODES), RAY))  # warm
    rows = [job(cluster, asked.parts, asked.seconds, seed) for seed in (None, 0, 1, 2)]
    say(f"{NODES} nodes of a core on one machine; each fails once in {HOUR:g} s and is back "
        f"{BACK:g} s later")  # fmt: skip
    print_markdown(
        ["parts", "failures", "s", "s by arithmetic", "begun again", "lost", "handed over twice"],
        rows,
    )
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
