"""The latents page, without a browser, on a stored survey and without one."""

import json
import shutil

import pytest
from streamlit.testing.v1 import AppTest

from interp.latents import neuronpedia
from interp.runs.store import Store

from ..manifests import seal_again


def latents_page():
    from interp.apps.latents import page

    page()


@pytest.fixture
def stored(surveyed, own_home):
    run = Store().root / "saes.survey" / surveyed.path.name
    shutil.copytree(surveyed.path, run)
    return run


def shown(**query):
    page = AppTest.from_function(latents_page, default_timeout=120)
    for name, value in query.items():
        page.query_params[name] = value
    page.run()
    assert not page.exception
    return page


def texts(page):
    return "\n".join(
        str(block.proto.body) for block in page.main if getattr(block, "type", "") == "html"
    )


def test_without_a_survey_it_says_how_to_make_one(own_home):
    page = shown()
    assert not page.error
    assert "interp saes survey --runs " in page.code[0].value


def test_by_density_at_first(stored, surveyed):
    page = shown()
    assert not page.error
    assert "1,024 latents over 19,720 tokens" in page.caption[0].value.replace("\\", "")
    rows = page.dataframe[0].value
    assert rows["density"].is_monotonic_decreasing
    assert f"latent {rows['latent'].iloc[0]} of topk-L2-S0" in texts(page)


def test_a_survey_of_before_says_what_it_lacks(stored):
    manifest = json.loads((stored / "manifest.json").read_text())
    del manifest["sae"]
    seal_again(stored, manifest)
    page = shown(latent="3")
    assert not page.error
    assert "does not say which SAE it is of" in page.info[0].value
    assert any("interp saes survey" in code.value for code in page.code)


def test_a_latent_by_its_number(stored):
    page = shown(latent="3")
    assert not page.error
    assert "latent 3 of topk-L2-S0" in texts(page)
    assert "Largest activations" in texts(page)


def test_a_word_that_is_no_token_is_said_in_place(stored):
    page = shown(word="no-such-word")
    assert "this model has no tokenizer" in page.error[0].value.replace("\\", "")


def test_no_model_is_loaded_until_it_is_asked_for(stored, monkeypatch):
    from interp.model import subject

    monkeypatch.setattr(subject, "open_subject", None)
    page = shown()
    page.segmented_control(key="view").set_value("On a text").run()
    assert not page.exception
    assert "Nothing is loaded yet" in page.info[0].value


def test_what_the_page_gives_away_is_read_back(surveyed):
    from interp.latents import card

    cards = [card.of_survey(surveyed, i) for i in (3, 9)]
    read = neuronpedia.parsed("latents.json", neuronpedia.as_json(cards).encode())
    assert [made.latent for made in read] == [3, 9]
