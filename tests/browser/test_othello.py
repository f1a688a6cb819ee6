"""The OthelloGPT pages in a real browser: a click chooses the disc to flip.

They need one comparison and one board edit of a random two-layer model (tests/othello/conftest.py).
"""

import shutil

import pytest

from ..othello.conftest import saes, store, tiny  # noqa: F401 - fixtures

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module", autouse=True)
def stored(runs, store):  # noqa: F811
    shutil.copytree(store, runs, dirs_exist_ok=True)


def test_a_click_on_a_disc_chooses_it(page, address):
    page.goto(f"{address}/othello")
    page.get_by_text("Flip a disc in the board the model represents").wait_for()
    page.get_by_text("Errors of the edited model against the edited board").wait_for()
    box = page.get_by_test_id("stSelectbox").filter(has_text="or click one on the board")
    discs = page.locator(".js-plotly-plot").first.locator(".scatterlayer .trace").first
    # the marks of the first trace are the 64 squares in order; e4 (28) is never empty
    discs.locator("path.point").nth(28).click(force=True)
    box.locator("input[value='e4'], div:text-is('e4')").first.wait_for()


def test_the_comparison_page_opens(page, address):
    page.goto(f"{address}/othello_layers")
    page.get_by_text("Linear probes against SAEs, layer by layer").first.wait_for()
    page.get_by_role("tab", name="Latents").click()
    page.get_by_text("Detects best").wait_for()
    page.get_by_role("tab", name="Board edit").click()
    page.get_by_text("Errors of the moves against the edited board").wait_for()
