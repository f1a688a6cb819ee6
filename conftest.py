"""A log of what each test costs: build/times/*.csv has its seconds of processor and of wall.

Child processes count. `make test` begins it anew and prints the dearest files of tests.
"""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "build" / "times"


def _processor() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Session and module fixtures count for the first test that asks for them."""
    processor, wall = _processor(), time.monotonic()
    made = yield
    FOLDER.mkdir(parents=True, exist_ok=True)
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    with (FOLDER / f"{worker}.csv").open("a", newline="") as file:
        spent = (_processor() - processor, time.monotonic() - wall)
        csv.writer(file).writerow([item.nodeid, *(f"{seconds:.3f}" for seconds in spent)])
    return made
