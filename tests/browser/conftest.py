"""What the browser tests share: a Chromium, and one app over one store for all of them.

A test file's own runs go into the store with `runs`; a page shows the newest of its study.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import pytest

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
VIEWPORT = {"width": 1280, "height": 1600}
PATIENCE = 120_000
"""Milliseconds that everything may take: a busy machine is no fault."""
FAILED = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def browser():
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no Chromium on this machine, and CI needs one")
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def serve(tmp_path_factory):
    """`serve(runs)` -> the address of an app over a store, answering."""
    servers = []

    def start(runs):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "interp", "app", "--port", str(port), "--runs", str(runs)]
        log = (tmp_path_factory.mktemp("app") / "log").open("wb")
        servers.append(subprocess.Popen(command, stdout=log, stderr=log))
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + PATIENCE / 1000
        while True:
            try:
                urllib.request.urlopen(f"{address}/_stcore/health", timeout=5)
                return address
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.2)

    yield start
    for server in servers:
        server.terminate()
        server.wait(120)


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """The folder of the store that `address` shows."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def address(serve, runs):
    return serve(runs)


@pytest.fixture(scope="session")
def empty_address(serve, tmp_path_factory):
    """An app over a store without runs."""
    return serve(tmp_path_factory.mktemp("nothing"))


@pytest.fixture(scope="session")
def context(browser):
    """One profile for all tests, so that what the app fetches is fetched and compiled once."""
    context = browser.new_context(viewport=VIEWPORT, reduced_motion="reduce")  # fewer frames
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


@pytest.fixture
def page(context, request):
    """The same tab for one test after another, as a page opens there in a third of the time. No
    test finds anything of the one before: a tab in which a test failed is closed."""
    page = context.pages[0] if context.pages else context.new_page()
    page.set_viewport_size(VIEWPORT)
    page.emulate_media(color_scheme="light")
    page.mouse.move(0, 0)
    try:
        with unbroken(page):
            yield page
    finally:
        if request.node.stash.get(FAILED, False):
            page.close()
        else:
            if page.url.startswith("http"):
                page.evaluate("localStorage.clear(); sessionStorage.clear()")
            page.goto("about:blank")


@contextmanager
def unbroken(page):
    """Nothing in a page fails."""
    broken = []

    def note(error):
        broken.append(str(error))

    page.on("pageerror", note)
    yield
    page.remove_listener("pageerror", note)
    assert not broken, broken
    assert page.locator(".stException").count() == 0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """What the page said, where its test failed."""
    report = yield
    page = item.funcargs.get("page")
    if report.when == "call" and report.failed and page:
        item.stash[FAILED] = True
        report.sections.append((f"the page, {page.url}", page.locator("body").inner_text()))
    return report


def settle(page):
    """Wait until a page has run, and what was there before is gone."""
    page.wait_for_timeout(300)
    page.locator("[data-test-script-state=notRunning]").wait_for()
    page.wait_for_timeout(300)
