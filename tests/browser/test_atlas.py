"""The atlas and agreement pages in a real browser: several searches in a row, one card, filters."""

import pandas as pd
import pytest

from interp.neurons import search

from ..neurons.big_atlas import make
from .timing import settled

pytestmark = pytest.mark.browser
SIZES = {"layers": 2, "neurons": 60, "size": 600, "random": 20}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("atlases")


@pytest.fixture(scope="module")
def atlas(store):
    return make(store, k=8, **SIZES)


@pytest.fixture(scope="module")
def here(atlas, store, serve):
    return serve(store)


def searched(page, word):
    """The rows that the page has, once its answer to the word is there."""
    box = page.get_by_role("textbox", name="Find a word")
    box.fill(word)
    box.press("Enter")
    return rows_of(page, word)


def rows_of(page, word):
    page.wait_for_url(f"**word={word}*")
    settled(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").first.click()
    assert download.value.suggested_filename == f"neurons {word}.csv"
    return pd.read_csv(download.value.path())


def test_every_search_of_several_is_answered(page, here, atlas):
    page.goto(f"{here}/atlas")
    for word in ("dog", "Monday", "king", "water", "Python"):
        found, want = searched(page, word), search.find(atlas, word, limit=50)
        assert found["name"].tolist() == want["name"].tolist(), word
        assert found["score"].tolist() == pytest.approx(want["score"].tolist())
        page.wait_for_url(f"**word={word}*")
    box = page.get_by_role("textbox", name="Find a word")
    page.go_back()
    page.wait_for_function("document.querySelector('input[aria-label^=Find]').value === 'water'")
    assert rows_of(page, "water")["name"][0] == search.find(atlas, "water")["name"][0]
    assert box.input_value() == "water"


def test_a_search_is_narrowed_down_and_a_row_has_a_card(page, here, atlas):
    page.goto(f"{here}/atlas?word=dog")
    rows_of(page, "dog")
    page.get_by_text("Tick a row of the table").wait_for()
    assert page.get_by_role("heading", level=3).count() == 0  # no card of a row nobody asked for
    for name, option in (("Layer", "1"), ("Kind", "down")):
        page.mouse.move(0, 0)  # over the table its toolbar appears, and covers the boxes above
        page.get_by_role("combobox", name=name, exact=True).click()
        page.get_by_role("option", name=option, exact=True).click()
    page.wait_for_url("**layer=1&kind=down*")
    found = rows_of(page, "dog")
    page.get_by_text("Reproduce this").first.click()
    command = "search dog --by score --limit 50 --layer=1 --kind=down"
    page.locator("code", has_text=command).wait_for()
    page.keyboard.press("Escape")
    want = search.find(atlas, "dog", limit=50, kinds=("down",), layer=1)
    assert found["name"].tolist() == want["name"].tolist()
    # the boxes for ticking are the first column
    page.get_by_test_id("stDataFrame").first.click(position={"x": 20, "y": 52})
    page.get_by_role("heading", name=want["name"][0]).wait_for()
    page.get_by_text("comes first, with a score of").wait_for()
    page.wait_for_url(f"**neuron={want['name'][0]}*")
    page.get_by_role("link", name="Texts that it fires on").wait_for()


def test_an_atlas_is_not_compared_with_itself(page, here, store):
    page.goto(f"{here}/agree")
    page.get_by_text("Agreement needs a second atlas").wait_for()
    page.get_by_text("interp neurons atlas --model MODEL").wait_for()
    make(store, k=7, **SIZES)
    page.reload()
    page.get_by_text("Neurons with the same first token").wait_for()
    page.get_by_text("The highest agreement is in layer").wait_for()
    assert page.get_by_text("100.00%").count() == 0
