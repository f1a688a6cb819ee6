"""The LinearScope page in a real browser, on small stored runs and an uploaded picture."""

import pytest
from PIL import Image

from interp.linearscope.explain import ExplainConfig
from interp.linearscope.responses import ImpulseConfig, SvdConfig
from interp.runs.store import Store
from interp.runs.study import run_or_load

from ..linearscope.test_studies import OWN

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module", autouse=True)
def store(runs, tmp_path_factory):
    """A store of runs of two networks whose answers are planted, and of one that the app opens."""
    folder = tmp_path_factory.mktemp("linearscope")
    (folder / "shown.py").write_text(OWN)
    store = Store(runs)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_or_load(ExplainConfig(model="shown:Classifier", size=16, classes=2), store)
        run_or_load(SvdConfig(model="shown:Shift", size=8, k=2), store)
        run_or_load(ImpulseConfig(size=32, at=("8,9",)), store)
    return store


def test_votes_vectors_and_responses(page, address, store):
    page.goto(f"{address}/linearscope")
    page.get_by_text("r of 2, layer by layer").wait_for()
    page.get_by_text("Reproduce this").first.click()
    command = "interp linearscope explain --model shown:Classifier --size 16 --classes 2"
    page.get_by_text(command).first.wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").first.click()
    assert download.value.suggested_filename == "classes.csv"
    page.get_by_role("tab", name="Biases of many pictures").click()
    page.get_by_text("No finished run of linearscope.bias yet").wait_for()
    page.get_by_role("tab", name="Singular vectors").click()
    page.get_by_text("Left singular vectors: the output patterns").wait_for()
    page.get_by_role("tab", name="Tokens").click()
    page.get_by_text("No finished run of linearscope.tokens yet").wait_for()
    page.get_by_role("tab", name="Responses").click()
    page.get_by_text("Its row of A: the input pixels").wait_for()
    pixel = page.get_by_label("Another pixel of the output")
    pixel.fill("3,900")
    pixel.press("Enter")
    page.get_by_text("no pixel 3,900 in an output of").wait_for()
    pixel.fill("12,7")
    pixel.press("Enter")
    page.get_by_text("no pixel 3,900 in an output of").wait_for(state="hidden")
    page.get_by_text("Reproduce this").locator("visible=true").first.click()
    page.get_by_text("--at 12,7").first.wait_for(state="attached")
    assert len(store.runs("linearscope.impulse")) == 2


def test_an_uploaded_picture(page, address, tmp_path):
    Image.new("RGB", (90, 60), (200, 30, 30)).save(tmp_path / "red.png")
    (tmp_path / "bad.png").write_text("no picture")
    page.goto(f"{address}/linearscope")
    page.locator("input[type=file]").set_input_files(tmp_path / "bad.png")
    page.get_by_text("cannot be read as a picture").wait_for()
    page.locator("input[type=file]").set_input_files(tmp_path / "red.png")
    page.get_by_text("cannot be read as a picture").wait_for(state="hidden")
    page.get_by_text("Reproduce this").first.click()
    page.get_by_text("interp linearscope explain --image").wait_for(state="attached")
