"""A log of what each test costs, and how several processes share the tests.

build/times/*.csv has seconds of processor and of wall; child processes count, those that live on
(the browser and its server) as they spend. `make test` begins it anew and prints the dearest files
of tests. The browser's tests go to one process, first and together, as they share a browser and a
server; so do those that are fuzzed and killed. The other files follow in their order, so that
nothing that takes long comes last.
"""

from __future__ import annotations

import csv
import gc
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent / "build" / "times"
BROWSER = "tests/browser/"
TOGETHER = {BROWSER: "browser", "tests/fuzz/": "server", "tests/kills/": "server"}
"""By folder, what its tests share in one process."""


def _processor() -> float:
    """Seconds of this process, and of those that it and they have begun."""
    spent = os.times()
    ended = spent.children_user + spent.children_system
    me = str(os.getpid())
    # of one thread: a session's processes are begun by the main one, and a file is read in no time
    return spent.user + spent.system + ended + sum(map(_living, _children(me, me)))


def _children(process: str, threads: str = "*") -> Iterator[str]:
    """Linux lists them; elsewhere there are none, and they count when they have ended."""
    for listed in Path("/proc", process, "task").glob(f"{threads}/children"):
        with suppress(OSError):  # it has ended
            yield from listed.read_text().split()


def _living(process: str) -> float:
    try:
        fields = Path("/proc", process, "stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended
        return 0.0
    own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return own + sum(map(_living, _children(process)))


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


def pytest_collection_finish() -> None:
    """What is imported stays, so nobody looks through it for garbage: streamlit does after every
    run of a page."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`--dist loadfile` with what is shared as one file, and files in order of collection."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Together(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            scope = super()._split_scope(nodeid)
            folder = f"{scope.rpartition('/')[0]}/"
            return TOGETHER.get(folder, scope)

    config.option.loadscopereorder = False
    return Together(config, log)
