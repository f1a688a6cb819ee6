"""Windows of one server at once: each sees the answers to its own questions."""

import pandas as pd
import pytest
from playwright.sync_api import expect

from interp.neurons.atlas import AtlasConfig
from interp.neurons.search import find
from interp.runs.study import run_or_load

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def atlas(dog_model, tmp_path_factory):
    return run_or_load(
        AtlasConfig(model=str(dog_model), k=8),
        out=tmp_path_factory.mktemp("windows") / "neurons.atlas" / "windows",
    )


@pytest.mark.parametrize("windows", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_windows_do_not_talk_to_each_other(context, serve, atlas, windows):
    words = [f"w{number}" for number in range(1, windows + 1)]
    address = serve(atlas.path.parents[1])
    pages = [context.new_page() for _ in words]
    boxes = [page.get_by_role("textbox", name="Find a word") for page in pages]
    pages[0].goto(f"{address}/atlas")  # the others find what it fetched
    boxes[0].wait_for()
    for page in pages[1:]:
        page.goto(f"{address}/atlas", wait_until="commit")
    for turn in range(2):  # in the second turn every window asks what its neighbour asked
        asked = words[turn:] + words[:turn]
        for box in boxes:
            box.wait_for()
        for box, word in zip(boxes, asked, strict=True):
            box.fill(word)
            box.press("Enter")
        for page, box, word in zip(pages, boxes, asked, strict=True):
            page.wait_for_url(f"**word={word}")
            expect(box).to_have_value(word)
            page.locator("[data-test-script-state=notRunning]").wait_for()
            with page.expect_download() as download:
                page.get_by_role("button", name="Download CSV").first.click()
            assert download.value.suggested_filename == f"neurons {word}.csv"
            names = pd.read_csv(download.value.path())["name"].tolist()
            assert names == find(atlas, word, limit=len(names))["name"].tolist()
    for page in pages:
        page.close()
