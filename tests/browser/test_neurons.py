"""Neurons, directions and steering in a real browser, as a newcomer would use them."""

import json
import shutil
from functools import partial

import pandas as pd
import pytest
from playwright.sync_api import expect

from interp.directions.sources import neuron_directions
from interp.model.neuron import parse_neuron
from interp.model.weights import Weights
from interp.neurons.atlas import AtlasConfig
from interp.neurons.tars import TarsConfig
from interp.runs.store import Store
from interp.runs.study import run_or_load

from ..manifests import finish_by_hand
from .conftest import settle

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module", autouse=True)
def atlases(runs, model_folder, tmp_path_factory):
    name = tmp_path_factory.mktemp("a-model-with-a-very-long-name-" * 3) / "model"
    shutil.copytree(model_folder("llama"), name)
    for model in (model_folder("gpt2"), name):
        run_or_load(AtlasConfig(model=str(model)), out=runs / "neurons.atlas" / model.parent.name)


def test_empty_store_says_how_to_begin(page, empty_address):
    page.goto(empty_address)
    page.get_by_text("Results that ship with the workbench").wait_for()
    page.get_by_text("interp neurons atlas --runs").wait_for()
    page.goto(f"{empty_address}/atlas")
    page.get_by_text("No finished run of neurons.atlas").wait_for()


def test_home_leads_to_the_atlas(page, address):
    page.goto(address)
    page.get_by_role("heading", name="What do you want to know?").wait_for()
    page.get_by_test_id("stDataFrame").wait_for()
    page.get_by_label("A word").fill("#7")
    page.get_by_role("button", name="Ask about a word").click()
    page.get_by_role("heading", name="Neuron atlas").wait_for()
    page.wait_for_url("**word=%237*")


def test_search_card_and_reproduction(page, address):
    page.goto(f"{address}/atlas")
    box = page.get_by_role("textbox", name="Find a word")
    box.fill("#7")
    box.press("Enter")
    page.wait_for_url("**word=%237*")
    settle(page)
    page.get_by_text("Reproduce this").first.click()
    page.get_by_text("interp neurons search '#7' --by score --limit 50 --atlas").wait_for()
    page.get_by_text("search.find(atlas, '#7'").wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").first.click()
    assert download.value.suggested_filename == "neurons #7.csv"
    neuron = page.get_by_role("textbox", name="Or name a neuron")
    neuron.fill("1.up.3")
    neuron.press("Enter")
    page.get_by_role("heading", name="1.up.3").wait_for()
    page.locator(".js-plotly-plot").nth(1).wait_for()
    page.get_by_role("button", name="Save the figure").first.click()
    with page.expect_download() as download:
        page.get_by_role("button", name="SVG", exact=True).first.click()
    assert download.value.suggested_filename == "tokens-0.svg"
    assert "through the LM head" in download.value.path().read_text()


def searched(page, word):
    """Wait until a page shows the answer to a search."""
    page.wait_for_url(f"**word=%23{word}*")
    expect(page.get_by_role("textbox", name="Find a word")).to_have_value(f"#{word}")


def test_every_search_counts_and_back_and_forward_restore_them(page, address):
    page.goto(address)
    page.get_by_role("link", name="Neuron atlas").first.click()
    box = page.get_by_role("textbox", name="Find a word")
    for word in "789":
        box.fill(f"#{word}")
        box.press("Enter")
        searched(page, word)
    page.get_by_role("tab", name="Layers").click()
    page.wait_for_url("**view=Layers*")
    page.get_by_text("of every vector, layer by layer").wait_for()
    page.go_back()
    box.wait_for()
    searched(page, 9)
    page.go_back()
    searched(page, 8)
    page.go_forward()
    searched(page, 9)
    page.get_by_role("link", name="Clamp").click()
    page.get_by_role("heading", name="Clamp a neuron").wait_for()
    page.go_back()
    box.wait_for()
    searched(page, 9)
    for _ in range(4):
        page.go_back()
    page.get_by_role("heading", name="What do you want to know?").wait_for()


def test_wrong_input_is_explained_in_place(page, address):
    page.goto(f"{address}/atlas")
    for label, typed, says in (
        ("Find a word", "zzz", "this model has no tokenizer"),
        ("Or name a neuron", "dog", "'dog' names no neuron"),
        ("Or name a neuron", "99.up.1", "no 99.up.1 in this atlas"),
    ):
        box = page.get_by_role("textbox", name=label)
        box.fill(typed)
        box.press("Enter")
        page.get_by_text(says, exact=False).wait_for()
        box.fill("")
        box.press("Enter")
        page.get_by_text(says, exact=False).wait_for(state="detached")
    page.get_by_role("tab", name="Layers").click()
    page.get_by_text("of every vector, layer by layer").wait_for()


def test_atlases_of_other_shapes_are_not_compared(page, address):
    page.goto(f"{address}/agree")
    page.get_by_text("Agreement needs a second atlas").wait_for()


def test_clamp_without_runs_says_how_to_make_one(page, empty_address):
    page.goto(f"{empty_address}/clamp")
    page.get_by_text("interp neurons clamp --runs").wait_for()


def test_clamp_slider_changes_the_text(page, address, runs):
    rows = {
        "value": [None, 0.0, 9.0],
        "probability": [0.1, 0.01, 0.9],
        "logprob": [-2.3, -4.6, -0.1],
    }
    texts = ["plain <b>text</b>", "at zero", "dogs dogs dogs"]
    activation = {"position": [0], "token": ["dog"], "activation": [1.5]}
    made = {
        "curve/values.parquet": pd.DataFrame({**rows, "text": texts}).to_parquet,
        "curve/activation.parquet": pd.DataFrame(activation).to_parquet,
    }
    config = {
        "model": "m", "neuron": "1.down.2", "prompt": "p", "word": "", "value": [0.0, 9.0],
        "where": "all", "chat": True, "tokens": 3, "device": "cpu",
    }  # fmt: skip
    finish_by_hand(runs, "neurons.clamp", config, made=made, word=" dog", parity=0.0)
    page.goto(f"{address}/clamp")
    page.get_by_text("dogs dogs dogs").wait_for()  # where it does most
    page.get_by_text("plain <b>text</b>").wait_for()
    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowLeft")
    page.get_by_text("at zero").wait_for()
    settle(page)
    page.get_by_text("Reproduce this").click()
    page.get_by_text("interp neurons clamp --model m --neuron 1.down.2").wait_for()


def test_directions_are_decoded_and_compared(page, address, dog_model, runs, tmp_path):
    neurons = [parse_neuron(name) for name in ("1.down.17", "1.down.3")]
    found = neuron_directions(Weights(dog_model), neurons)
    found.save(tmp_path / "finds")
    made = {f"finds/{p.name}": partial(shutil.copy, p) for p in (tmp_path / "finds").iterdir()}
    finish_by_hand(runs, "a.study", made=made, finished="2099-01-01T00:00:00Z")
    page.goto(f"{address}/directions")
    page.get_by_text("2 directions, 32 numbers each").wait_for()
    page.get_by_test_id("stDataFrame").wait_for()
    settle(page)
    page.get_by_text("Reproduce this").first.click()
    page.get_by_text("interp directions decode").wait_for()
    page.get_by_role("tab", name="Against another set").click()
    page.get_by_text("Cosines").wait_for()


def test_removal_page(page, address, runs, dog_model, tmp_path):
    entry = {"describe": "w1 w2 w3", "prompts": ["w4 w5"]}
    entry["neighbour"] = {"word": "w9", "prompts": ["w7 w8"]}
    (tmp_path / "concepts.json").write_text(json.dumps({"dog": entry}))  # JSON is YAML
    (tmp_path / "text.txt").write_text("w1 w2 w3 w4 " * 20)
    config = TarsConfig(
        model=str(dog_model), file=str(tmp_path / "concepts.json"), edits=(0, 2), tokens=40,
        corpus=str(tmp_path / "text.txt"),
    )  # fmt: skip
    run_or_load(config, Store(runs))
    page.goto(f"{address}/tars")
    page.get_by_text("Removing 'dog'").wait_for()
    page.get_by_text("Prompt by prompt").click()
    page.get_by_text("Reproduce this").click()
    page.get_by_text("interp neurons tars --model").wait_for()


def test_narrow_window(page, address):
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(f"{address}/atlas")
    page.get_by_role("textbox", name="Find a word").wait_for()
    overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert overflow <= 0
