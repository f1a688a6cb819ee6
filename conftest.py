"""A log of what each test costs, and how several processes share the tests.

build/times/*.csv has seconds of processor and of wall; child processes count. `make test` begins it
anew and prints the dearest files of tests. The browser's tests go to one process, first and
together, as they share a browser and a server; the other files follow in their order, so that
nothing that takes long comes last.
"""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent / "build" / "times"
BROWSER = "tests/browser/"


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(BROWSER))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`--dist loadfile` with the browser's tests as one file, and files in order of collection."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Together(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return BROWSER if nodeid.startswith(BROWSER) else super()._split_scope(nodeid)

    config.option.loadscopereorder = False
    return Together(config, log)
