"""`make test`: runs lanes of stages beside each other, and prints the seconds of each stage.

    python tests/house/stages.py "lint types docs" "together"

Each argument is a lane of make targets, one after another. The last lane prints as it goes, the
others when a stage ends. Every stage is run even if one fails; the exit code is 1 then.
"""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TIMES = Path(__file__).parent.parent.parent / "build" / "times"
SHOWN = 15


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def lane(stages: str, quiet: bool) -> list[tuple[str, float, bool]]:
    """(stage, seconds, whether it passed) of each stage of a lane."""
    done = []
    for stage in stages.split():
        start = time.monotonic()
        ran = subprocess.run(
            ["make", "--no-print-directory", stage],
            stdout=subprocess.PIPE if quiet else None,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if quiet:
            say(f"===== {stage}\n{ran.stdout}")
        done.append((stage, time.monotonic() - start, ran.returncode == 0))
    return done


def dearest() -> list[tuple[str, float]]:
    """Files of tests by the processor time of their tests."""
    spent: Counter[str] = Counter()
    for log in TIMES.glob("*.csv"):
        for test, processor, _ in csv.reader(log.read_text().splitlines()):
            spent[test.partition("::")[0]] += float(processor)
    return spent.most_common()


def main(lanes: list[str]) -> int:
    shutil.rmtree(TIMES, ignore_errors=True)
    start = time.monotonic()
    quiet = [True] * (len(lanes) - 1) + [False]
    with ThreadPoolExecutor(len(lanes)) as pool:
        done = [stage for part in pool.map(lane, lanes, quiet) for stage in part]
    files = dearest()
    say(f"Processor seconds of the {len(files)} files of tests: {sum(s for _, s in files):.0f}")
    for name, seconds in files[:SHOWN]:
        say(f"  {seconds:6.1f}  {name}")
    say("Stages")
    for stage, seconds, passed in done:
        say(f"  {seconds:6.1f} s  {stage}{'' if passed else '  FAILED'}")
    say(f"  {time.monotonic() - start:6.1f} s  together")
    return 0 if all(passed for _, _, passed in done) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
