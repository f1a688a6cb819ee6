"""Films a newcomer's way through the app: screenshots in docs/pictures/film, shown in docs/app.md.

usage: python docs/film.py      (SmolLM2, about six minutes on two cores, in Chromium)

From the start page and without a terminal: an atlas is made, a neuron found and steered with, kept
beside an SAE's latent and an observable's feature, the three compared, and a report taken away,
which opens without a network.
"""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).parent / "pictures" / "film"
WIDTH, HEIGHT = 1180, 860
COLLECTION = "dogs"
SLOW = 600_000
"""Milliseconds that the longest study may take."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of the app, as who works in a folder starts it: its store is ./runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = str(Path(sys.executable).parent)
    path = {"PATH": os.pathsep.join([here, os.environ["PATH"]])}
    kept = {name: value for name, value in os.environ.items() if name != "INTERP_RUNS"}
    server = subprocess.Popen(["interp", "app", "--port", str(port)], cwd=folder, env=kept | path)
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{address}/_stcore/health", timeout=5)
                break
            except OSError:
                time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait(20)


class Film:
    """What is done in the browser, with a picture after each step."""

    def __init__(self, page: Page) -> None:
        self.page, self.taken = page, 0

    def settle(self) -> None:
        """Wait until the page has run."""
        self.page.wait_for_timeout(700)
        self.page.locator("[data-test-script-state=notRunning]").wait_for(timeout=SLOW)
        self.page.wait_for_timeout(500)

    def shot(self, name: str) -> None:
        self.settle()
        self.save(name)

    def save(self, name: str) -> None:
        self.taken += 1
        image = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        small = image.quantize(96, dither=Image.Dither.NONE)
        small.save(FOLDER / f"{self.taken:02d}-{name}.png", optimize=True)

    def button(self, name: str) -> None:
        main = self.page.get_by_test_id("stMain")
        main.get_by_role("button", name=name, exact=True).first.click()

    def button_with(self, text: str) -> None:
        main = self.page.get_by_test_id("stMain")
        main.get_by_role("button").filter(has_text=text).first.click()

    def link(self, name: str) -> None:
        """A link: of a menu that is open, else of the page, else of the navigation."""
        self.page.get_by_role("link", name=name, exact=True).last.click()

    def fill(self, label: str, text: str) -> None:
        box = self.page.get_by_role("textbox", name=label, exact=True).first
        box.fill(text)
        box.press("Enter")
        self.settle()

    def finished(self, study: str) -> None:
        """On the jobs page: wait for a study, and open its run."""
        running = self.page.get_by_text(f"1 running: {study}").first
        running.wait_for(timeout=SLOW)
        self.page.wait_for_timeout(10_000)
        self.shot(f"job-{study.partition('.')[0]}")
        job = self.page.locator("[class*=st-key-job]").filter(has_text=study)
        job.get_by_role("link", name="Open the run").first.click(timeout=SLOW)
        self.settle()

    def keep(self, note: str) -> None:
        """On a direction's page: keep it."""
        if "view=keep" not in self.page.url:
            self.page.get_by_role("radio", name="Keep", exact=True).click()
        box = self.page.get_by_role("combobox", name="Collection")
        box.wait_for(timeout=SLOW)
        self.settle()
        if box.input_value() != COLLECTION:
            box.fill(COLLECTION)
            box.press("Enter")
        self.page.get_by_label("Note").fill(note)
        self.button("Keep it")
        self.page.get_by_role("link", name=f"Open {COLLECTION}").wait_for()


def a_model(film: Film) -> None:
    """The start page of an empty store leads to the form; the atlas is made as a job."""
    film.shot("start")
    film.fill("A model", "smollm2-135m")
    film.page.get_by_role("heading", name="New study").wait_for()
    film.shot("form")
    film.button("Start")
    film.finished("neurons.atlas")


def a_neuron(film: Film) -> None:
    """A word leads to a neuron, and the neuron to steering."""
    film.link("Start")
    film.settle()
    film.fill("A word", "dog")
    film.page.get_by_role("heading", name="Neuron atlas").wait_for()
    film.shot("search")
    film.fill("Or name a neuron", "29.down.808")
    card = film.page.get_by_role("heading", name="29.down.808", exact=True)
    card.wait_for()
    card.scroll_into_view_if_needed()
    film.shot("neuron")
    film.button_with("29.down.808")
    film.link("Steer")
    film.page.get_by_role("heading", name="Steer", exact=True).wait_for()
    film.page.get_by_text("Run the model").click()
    film.page.get_by_role("heading", name="As it is").first.wait_for(timeout=SLOW)
    film.shot("steered")


def three_to_keep(film: Film) -> None:
    """The neuron, the latent nearest to it in an SAE that ships, and an observable's feature."""
    film.link("Start")
    film.settle()
    film.fill("A direction", "29.down.808")
    film.page.get_by_role("heading", name="One direction").wait_for()
    film.keep("writes dog: the word after it is about dogs")
    film.shot("kept")
    film.page.get_by_role("radio", name="Nearest neurons and latents").click()
    film.page.get_by_text("Compare with an SAE").click()
    film.page.get_by_text("latent", exact=False).first.wait_for()
    film.settle()
    film.button_with("sae:")
    film.shot("nearest")
    film.link("Keep")
    film.page.wait_for_url("**direction=sae*")
    film.keep("the nearest latent of the shipped SAE at layer 14")
    film.link("New study")
    film.page.get_by_role("heading", name="New study").wait_for()
    box = film.page.get_by_role("combobox", name="Study")
    box.fill("obsprop.run")
    box.press("Enter")
    film.settle()
    film.button("Start")
    film.finished("obsprop.run")
    film.page.get_by_role("heading", name="Observable propagation").wait_for()
    film.button_with("25.2 > 26.2")
    film.shot("observable")
    film.link("Keep")
    film.page.wait_for_url("**direction=run*")
    film.keep("moves the subject pronoun")


def compared(film: Film, folder: Path) -> None:
    """The three beside each other, and the report, opened without a network."""
    film.link(f"Open {COLLECTION}")
    film.page.get_by_role("heading", name="Collections").wait_for()
    film.shot("collection")
    film.page.get_by_role("tab", name="Compare").click()
    film.page.locator(".js-plotly-plot").first.wait_for(timeout=SLOW)
    film.shot("compared")
    film.page.get_by_role("tab", name="Files").click()
    with film.page.expect_download(timeout=SLOW) as download:
        film.button("Export report (HTML)")
    sent = folder / "dogs.html"
    download.value.save_as(sent)
    film.page.context.set_offline(True)
    film.page.goto(sent.as_uri())
    film.page.locator(".js-plotly-plot").first.wait_for()
    film.page.wait_for_timeout(1000)
    film.save("report")


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.glob("*.png"):
        old.unlink()
    with (
        tempfile.TemporaryDirectory() as folder,
        served(Path(folder)) as address,
        sync_playwright() as playwright,
    ):
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(120_000)
        page.goto(address)
        film = Film(page)
        a_model(film)
        a_neuron(film)
        three_to_keep(film)
        compared(film, Path(folder))


if __name__ == "__main__":
    main()
