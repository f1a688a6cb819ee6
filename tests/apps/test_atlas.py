"""The atlas page without a browser: what it says of an atlas without a search index."""

import pytest
from streamlit.testing.v1 import AppTest

from interp.neurons.kept_index import make_index

from ..neurons.test_index import random_atlas

PAGE = "from interp.apps.atlas import page\npage()"


@pytest.fixture
def atlas(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_RUNS", str(tmp_path))
    return random_atlas(tmp_path, 0, metrics={"vectors": 36})


def shown(**state):
    page = AppTest.from_string(PAGE, default_timeout=120)
    for name, value in state.items():
        page.session_state[f"?{name}"] = value
    page.run()
    assert not page.exception
    return page


def test_the_command_that_makes_an_index_stands_on_the_page(own_home, atlas):
    before = shown(word="dog")
    command = f"neurons index --atlas {atlas.path}"
    assert any(command in code.value for code in before.code)
    make_index(atlas)
    after = shown(word="dog")
    assert not any(command in code.value for code in after.code)
    tables = [page.dataframe[0].value for page in (before, after)]
    assert tables[0].equals(tables[1])


def test_an_address_of_a_model_without_a_run_says_whose_it_shows(own_home, atlas):
    for asked, says in (("another", ["No run of another is here; this is of random 0."]),
                        ("random 0", [])):  # fmt: skip
        page = AppTest.from_string(PAGE, default_timeout=120)
        page.query_params["model"] = asked
        page.run()
        told = [info.value.replace("\\", "") for info in page.info]
        assert [text for text in told if "No run" in text] == says


def test_what_a_browser_sends_is_one_line(own_home, atlas):
    """Anything may be sent as a choice."""
    page = shown(layer="99", kind="gone", by="name", word="dog")
    assert not page.error
    assert len(page.dataframe[0].value) > 5
    page = shown(neuron="9.up.0")
    assert "no 9.up.0 in this atlas" in page.error[0].value.replace("\\", "")


def test_a_card_only_of_what_was_asked_for(own_home, atlas):
    assert not shown(word="dog").subheader
    assert shown(word="dog", neuron="0.up.1").subheader[0].value.replace("\\", "") == "0.up.1"
