"""A direction followed through the pages in a real browser: opened by its URL, its neighbours,
back and forward, kept, compared, exported, taken in again."""

import zipfile
from urllib.parse import quote

import pytest

from interp.directions.collections import open_collection
from interp.directions.keeping import keep
from interp.runs.store import Store

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def kept(runs, dog_model):
    """A collection that has a neuron already."""
    keep("dogs", "1.up.4", str(dog_model), store=Store(runs))
    return "dogs"


def test_a_direction_by_its_url_its_neighbours_and_the_collection(
    page, address, runs, dog_model, kept, tmp_path
):
    model = quote(str(dog_model), safe="")
    page.goto(f"{address}/direction?direction=1.down.17&model={model}")
    page.get_by_role("heading", name="1.down.17").wait_for()
    page.get_by_text("1  dog", exact=True).wait_for()

    page.get_by_role("radio", name="Nearest neurons and latents").click()
    page.wait_for_url("**view=nearest*")
    page.get_by_text("random directions in 32 dimensions").wait_for()
    page.go_back()
    page.get_by_text("1  dog", exact=True).wait_for()
    assert "view=nearest" not in page.url
    page.go_forward()
    page.get_by_text("random directions in 32 dimensions").wait_for()
    assert "view=nearest" in page.url

    page.get_by_role("button", name="Carry on").first.click()
    page.get_by_role("link", name="Keep").click()
    page.wait_for_url("**view=keep*")
    page.get_by_label("Note").fill("writes dog")
    page.get_by_role("button", name="Keep it").click()
    page.get_by_role("link", name="Open dogs").click()
    page.wait_for_url("**/kept?*name=dogs*")
    page.get_by_role("heading", name="1.down.17").wait_for()
    assert [entry.note for entry in open_collection("dogs", Store(runs)).entries] == [
        "",
        "writes dog",
    ]

    page.get_by_role("tab", name="Compare").click()
    page.wait_for_url("**view=Compare*")
    page.get_by_text("composition").first.wait_for()
    page.locator(".js-plotly-plot").first.wait_for()

    page.get_by_role("tab", name="Files").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as .zip").click()
    sent = tmp_path / "from a colleague.zip"
    download.value.save_as(sent)
    assert len(zipfile.ZipFile(sent).namelist()) == 1 + 2 * 3

    page.locator("input[type=file]").set_input_files(sent)
    page.get_by_role("button", name="Take it in").click()
    page.wait_for_url("**name=from*colleague*")
    page.get_by_text("2 directions").wait_for()
    note = page.get_by_label("Note").last
    note.fill("seen by me")
    note.press("Control+Enter")
    page.wait_for_function("() => !document.querySelector('[data-testid=stStatusWidget]')")
    page.get_by_role("button", name="Take it out").first.click()
    page.get_by_text("1 direction").wait_for()
    (left,) = open_collection("from a colleague", Store(runs)).entries
    assert (left.title, left.note) == ("1.down.17", "seen by me")


def test_a_link_of_the_menu_leads_to_steering(page, address, dog_model):
    model = quote(str(dog_model), safe="")
    page.goto(f"{address}/direction?direction=1.down.17&model={model}&view=compare&other=1.up.4")
    page.get_by_text("composition").first.wait_for()
    page.get_by_role("button", name="Carry on").first.click()
    page.locator("a[href*='steer?direction']").first.click()
    page.wait_for_url("**/steer?*direction=1.down.17*")
