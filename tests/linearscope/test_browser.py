"""The LinearScope page in a real browser, on stored runs and an uploaded picture."""

import pytest
from PIL import Image

from interp.linearscope.explain import ExplainConfig
from interp.linearscope.responses import ImpulseConfig, SvdConfig
from interp.runs.store import Store
from interp.runs.study import run_or_load

from ..apps.test_browser import browser, page, serve  # noqa: F401

pytestmark = pytest.mark.browser


def test_votes_vectors_and_responses(page, serve, tmp_path):  # noqa: F811
    store = Store(tmp_path)
    run_or_load(ExplainConfig(), store)
    run_or_load(SvdConfig(model="waifu2x", size=32, k=4), store)
    run_or_load(ImpulseConfig(size=32), store)
    page.goto(f"{serve(tmp_path)}/linearscope")
    page.get_by_text("Egyptian cat 38%").wait_for()
    page.get_by_text("r of Egyptian cat, layer by layer").wait_for()
    page.get_by_text("Reproduce this").first.click()
    page.get_by_text("interp linearscope explain", exact=True).wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").first.click()
    assert download.value.suggested_filename == "classes.csv"
    page.get_by_role("tab", name="Biases of many pictures").click()
    page.get_by_text("No run of linearscope.bias yet").wait_for()
    page.get_by_role("tab", name="Singular vectors").click()
    page.get_by_text("Left singular vectors: what comes of it").wait_for()
    page.get_by_role("tab", name="Responses").click()
    page.get_by_text("Its row: the input pixels it is made of").wait_for()
    place = page.get_by_label("Another place of the output")
    place.fill("3,900")
    place.press("Enter")
    page.get_by_text("no place 3,900 in an output of").wait_for()
    place.fill("12,7")
    place.press("Enter")
    page.get_by_text("no place 3,900 in an output of").wait_for(state="hidden")
    page.get_by_role("tabpanel").filter(has_text="Another place").get_by_text(
        "interp linearscope impulse"
    ).wait_for(state="attached")
    assert len(store.runs("linearscope.impulse")) == 2
    page.get_by_role("tab", name="Tokens").click()
    page.get_by_text("No run of linearscope.tokens yet").wait_for()


def test_an_uploaded_picture(page, serve, tmp_path):  # noqa: F811
    Image.new("RGB", (90, 60), (200, 30, 30)).save(tmp_path / "red.png")
    (tmp_path / "bad.png").write_text("no picture")
    page.goto(f"{serve(tmp_path / 'runs')}/linearscope")
    page.get_by_text("No run of linearscope.explain yet").wait_for()
    page.locator("input[type=file]").set_input_files(tmp_path / "red.png")
    page.get_by_text("layer by layer").wait_for()
    page.locator("input[type=file]").set_input_files(tmp_path / "bad.png")
    page.get_by_text("cannot be read as a picture").wait_for()
