"""The page of an SAE's latents in a real browser: search, card, what is taken away, a text."""

import pytest

from interp.latents.survey import SurveyConfig
from interp.runs.store import Store
from interp.runs.study import run_or_load

from ..latents.planted import write_sae
from .conftest import settle

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def survey(runs, dog_model, tmp_path_factory):
    """Of an SAE whose latent 7 writes 'dog'."""
    folder = tmp_path_factory.mktemp("sae")
    (folder / "corpus.txt").write_text(" ".join(f"w{i % 211}" for i in range(3000)))
    return run_or_load(
        SurveyConfig(
            model=str(dog_model), saes=str(write_sae(folder / "sae", dog_model)),
            corpus=str(folder / "corpus.txt"), tokens=2000, length=40, neurons=3,
        ),
        Store(runs),
    )  # fmt: skip


def test_a_word_its_latent_and_its_card(page, address, survey):
    page.goto(f"{address}/latents")
    page.get_by_text("latents by density").first.wait_for()
    box = page.get_by_role("textbox", name="Find a word")
    box.fill("dog")
    box.press("Enter")
    page.wait_for_url("**word=dog*")
    page.get_by_text("Activations of").first.wait_for()
    page.get_by_role("textbox", name="Latents to take away").fill("7, 12")
    page.get_by_role("textbox", name="Latents to take away").press("Enter")
    settle(page)
    page.get_by_text("Reproduce this").last.click()
    page.get_by_text("interp saes latent 7 12 --survey").wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download HTML").click()
    told = download.value.path().read_text()
    assert told.count('class="card"') == 2
    assert "dog" in told
    assert "<script" not in told


def test_a_text(page, address, survey):
    page.goto(f"{address}/latents")
    page.get_by_text("On a text").click()
    page.get_by_text("Run the model").click()
    box = page.get_by_label("Text")
    box.fill("w1 w2 w3 w4 w5")
    box.press("Control+Enter")
    page.get_by_text("The strongest latents at each token").wait_for()
    page.get_by_role("button", name=" · ").first.click()
    settle(page)
    page.get_by_text("Reproduce this").last.click()
    page.get_by_text("interp saes search --text").wait_for()


def test_without_a_survey(page, empty_address):
    page.goto(f"{empty_address}/latents")
    page.get_by_text("interp saes survey --runs").wait_for()
