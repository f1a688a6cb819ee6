"""How long the app takes to answer, in a browser: a table by page and action.

    python -m tests.browser.timing --runs runs --runs runs-big [--page atlas …] [--times 9]

Each store has a server of its own, started for the measurement; what the clock shows is wall time
from an action to the content that answers it. `first` is the first time in a fresh server, `next`
the median of further ones, each with another word, row or statistic, so that no answer is a stored
one. `server` is what the server holds in memory after all of them (RSS), `CPU` what it computed on.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from interp.analyses import analyses
from interp.cli.common import print_markdown, say
from interp.neurons import search
from interp.runs.store import Run, Store

from .conftest import FLAGS

WORDS = ("dog", "Monday", "king", "water", "Python", "California", "seven", "red", "tree", "house")
Action = Callable[[Page, int], None]


def search_for(page: Page, turn: int) -> None:
    """Another word, until its table is there."""
    word = WORDS[turn % len(WORDS)]
    box = page.get_by_role("textbox", name="Find a word")
    box.fill(word)
    box.press("Enter")
    page.wait_for_url(f"**word={word}*")  # written as the answer begins
    settled(page)


def exact(page: Page, turn: int) -> None:
    """The token alone, then its whole family again."""
    page.get_by_text("Exact token").click()
    page.wait_for_url(lambda url: ("exact=yes" in url) == (turn % 2 == 0))
    settled(page)


def card_of(run: Run) -> Action:
    """Another vector's card, until both of its pictures are there."""

    def open_card(page: Page, turn: int) -> None:
        layers = run.manifest["model"]["n_layers"]
        kind = run.manifest["kinds"][turn % len(run.manifest["kinds"])]
        name = f"{turn % layers}.{kind}.{17 * turn + 3}"
        box = page.get_by_role("textbox", name="Or name a neuron")
        box.fill(name)
        box.press("Enter")
        page.get_by_role("heading", name=name).wait_for()
        page.locator(".js-plotly-plot").nth(1).wait_for()
        settled(page)

    return open_card


def statistic(page: Page, turn: int) -> None:
    """The layers of another statistic."""
    name = search.STATISTICS[turn % len(search.STATISTICS)]
    if turn == 0:
        page.get_by_role("tab", name="Layers").click()
    else:
        page.get_by_role("combobox", name="Statistic").click()
        page.get_by_role("option", name=name, exact=True).click()
    page.get_by_text(f"{name} of every vector").first.wait_for()
    settled(page)


def settled(page: Page) -> None:
    """Until the server has nothing more to say: no script runs and nothing is stale."""
    page.wait_for_function(
        "!document.querySelector('[data-test-script-state=running], [data-stale=true]')"
    )


def visited(page: Page, address: str) -> None:
    page.goto(address)
    page.get_by_role("heading", level=1).first.wait_for()
    settled(page)


@contextmanager
def served(runs: Path) -> Iterator[tuple[str, int]]:
    """A fresh server over a store: its address and the number of its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "interp", "app", "--port", str(port), "--runs", str(runs)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        while not _answers(address):
            time.sleep(0.2)
        time.sleep(3)  # nobody opens a page before the server has said where it is
        yield address, server.pid
    finally:
        server.terminate()
        server.wait(20)


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"{address}/_stcore/health", timeout=5)
    except OSError:
        return False
    return True


def used(process: int) -> tuple[float, float]:
    """Memory (MiB) and processor time (s) of a process."""
    status = Path(f"/proc/{process}/status").read_text().splitlines()
    rss = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return rss / 1024, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def clocked(action: Callable[[], None]) -> float:
    start = time.monotonic()
    action()
    return time.monotonic() - start


def timed(page: Page, action: Action, times: int) -> tuple[float, float]:
    """Seconds of the first time, and the median of the others."""
    first, *others = (clocked(lambda turn=turn: action(page, turn)) for turn in range(times + 1))
    return first, statistics.median(others)


def of_atlas(browser: Browser, runs: Path, times: int) -> Iterator[list[str]]:
    """Rows of the table: the atlas page of a store's newest atlas."""
    run = Store(runs).runs("neurons.atlas")[0]
    what = f"{run.config['model']}, {2 * run.metrics['vectors']:,} rows"
    with served(runs) as (server, process), window(browser) as context:
        yield from visits(context, f"{server}/atlas", what, times, process)
        page = context.new_page()
        visited(page, f"{server}/atlas")
        actions = {
            "search": search_for, "exact": exact, "card": card_of(run), "layers": statistic,
        }  # fmt: skip
        for name, action in actions.items():
            yield row(what, name, *timed(page, action, times), process)


def of_agreement(browser: Browser, runs: Path) -> Iterator[list[str]]:
    """A row of the table: the agreement of a store's newest atlas with another."""
    with served(runs) as (server, process), window(browser) as context:
        seconds = []
        for _ in range(2):
            page = context.new_page()
            start = time.monotonic()
            page.goto(f"{server}/agree")
            page.get_by_text("The highest agreement").wait_for()
            seconds.append(time.monotonic() - start)
        yield row(str(runs), "agreement", *seconds, process)


def of_pages(browser: Browser, runs: Path, addresses: list[str], times: int) -> Iterator[list[str]]:
    """Rows of the table: the first visit to each page, in a server of its own."""
    for name in addresses:
        with served(runs) as (server, process), window(browser) as context:
            before = used(process)[1]
            seconds = visit(context, f"{server}/{name}")
            cpu = used(process)[1] - before
            what = f"/{name}: first visit {cpu:.1f} s CPU"
            yield from visits(context, f"{server}/{name}", what, times, process, seconds)


def visits(
    context: BrowserContext, address: str, what: str, times: int, process: int,
    first: tuple[float, float] | None = None,
) -> Iterator[list[str]]:  # fmt: skip
    """Rows of the table: how soon a page has its title, and how soon all of it."""
    first = first or visit(context, address)
    others = zip(*(visit(context, address) for _ in range(times)), strict=True)
    for name, one, more in zip(("page: title", "page: all"), first, others, strict=True):
        yield row(what, name, one, statistics.median(more), process)


def visit(context: BrowserContext, address: str) -> tuple[float, float]:
    """Seconds until a page has its title, and until all of it is there, in a tab of its own."""
    page, start = context.new_page(), time.monotonic()
    page.goto(address)
    page.get_by_role("heading", level=1).first.wait_for()
    title = time.monotonic() - start
    settled(page)
    seconds = time.monotonic() - start
    page.close()
    return title, seconds


@contextmanager
def window(browser: Browser) -> Iterator[BrowserContext]:
    """A browser's window, which keeps what it fetched."""
    context = browser.new_context(viewport={"width": 1280, "height": 1600})
    context.set_default_timeout(120_000)
    yield context
    context.close()


def row(what: str, action: str, first: float, others: float, process: int) -> list[str]:
    memory, cpu = used(process)
    return [what, action, f"{first:.2f}", f"{others:.2f}", f"{memory:.0f} MiB", f"{cpu:.1f} s"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, action="append", required=True)
    parser.add_argument("--times", type=int, default=9)
    parser.add_argument(
        "--page", nargs="*", help="First visits to these pages (all: every page) instead."
    )
    asked = parser.parse_args()
    pages = asked.page or []
    if pages == ["all"]:
        pages = [page.address for entry in analyses().values() for page in entry.pages]
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    rows = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        for runs in asked.runs:
            if pages:
                rows += of_pages(browser, runs, pages, asked.times)
            else:
                rows += of_atlas(browser, runs, asked.times)
                if len(Store(runs).runs("neurons.atlas")) > 1:
                    rows += of_agreement(browser, runs)
        browser.close()
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    say(f"{os.cpu_count()} cores of {platform.machine()}, Python {platform.python_version()}; "
        f"load {load}; seconds of wall time, next: median of {asked.times}")  # fmt: skip
    print_markdown(["store", "action", "first", "next", "server", "its CPU"], rows)


if __name__ == "__main__":
    main()
