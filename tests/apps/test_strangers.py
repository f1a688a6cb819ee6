"""Pages on runs that somebody else made: text is text, a bad run is passed over, and nothing is
fetched that the visitor did not ask for."""

import dataclasses
import json
import re
import shutil
from functools import partial

import pandas as pd
import pytest
import torch
from streamlit.testing.v1 import AppTest

from interp.directions import Directions
from interp.directions.encoder import Encoder
from interp.directions.keeping import keep_directions
from interp.directions.provenance import Provenance
from interp.model import catalog
from interp.model.site import Site
from interp.neurons.clamp import ClampConfig
from interp.othello.compare import CompareConfig

from ..manifests import finish_by_hand

EVIL = "![x](http://evil.example/beacon.png) [click](http://evil.example) $x^2$ :red[a]"
CURVE = {"value": [None, 1.0], "probability": [0.1, 0.2], "text": [EVIL, "b"]}


def config_of(config, **changes):
    return json.loads(json.dumps(dataclasses.asdict(config))) | changes


def clamp_run(root, config=None, **facts):
    given = {"model": "m", "neuron": "1.down.17", "prompt": ["w5"], **(config or {})}
    first = next(iter(given["prompt"]), "") if isinstance(given["prompt"], list) else "w5"
    tables = {"values": {**CURVE, "prompt": first}, "means": CURVE, "activation": {"token": ["w5"]}}
    made = {
        f"curve/{name}.parquet": pd.DataFrame(columns).to_parquet
        for name, columns in tables.items()
    }
    facts = {"word": " dog", "parity": 1e-6, **facts}
    return finish_by_hand(
        root, "neurons.clamp", config_of(ClampConfig(), **given), version=2, made=made, **facts
    )


def clamp_page():
    from interp.apps.clamp import page

    page()


def othello_page():
    from interp.apps.othello import page

    page()


def prompt_page():
    from interp.apps.prompt import page

    page()


def steer_page():
    from interp.apps.steer import page

    page()


def directions_page():
    from interp.apps.directions import page

    page()


def direction_page():
    from interp.apps.direction import page

    page()


def shown_by(page, model="", **params):
    """A page at these parameters, with a model that is chosen for all pages."""
    shown = AppTest.from_function(page, default_timeout=120)
    if model:
        shown.session_state["chosen model"] = model
    for name, value in params.items():
        shown.query_params[name] = value
    shown.run()
    assert not shown.exception
    return shown


@pytest.fixture
def store(own_home):
    return own_home / "runs"


def test_what_a_run_says_is_shown_as_it_is(store):
    config = {"neuron": EVIL, "where": EVIL, "model": EVIL, "prompt": [EVIL, "w5"]}
    clamp_run(store, config, word=f"{EVIL}\x1b")
    shown = shown_by(clamp_page)
    caption, labels = shown.caption[0].value, [metric.label for metric in shown.metric]
    assert caption.replace("\\", "").count(EVIL) == 3
    assert EVIL in shown.main.selectbox[0].options  # where no markdown is read
    assert len(labels) == 2
    for text in (caption, *labels):
        assert not re.search(r"[!\[\](){}$:*_`<|~]", re.sub(r"\\.", "", text))
    assert r"\\x1b" in labels[0]


@pytest.mark.parametrize(
    ("config", "facts"),
    [
        *(({"model": value}, {}) for value in (3, ["a"], None)),
        *(({name: 3}, {}) for name in ("prompt", "neuron", "where")),
        *(({}, {name: value}) for name, value in (("word", 3), ("parity", "x"))),
    ],
)
def test_a_bad_newest_run_does_not_hide_the_others(config, facts, store):
    clamp_run(store)
    clamp_run(store, {"tokens": 1, **config}, finished="9999-01-01T00:00:00Z", **facts)
    shown = shown_by(clamp_page)
    assert len(shown.sidebar.selectbox[0].options) == 1
    assert "1.down.17" in shown.caption[0].value.replace("\\", "")
    assert not shown.error


def test_a_run_without_a_prompt_is_one_line_below_the_selector(store):
    bad = clamp_run(store, {"prompt": []}, finished="9999-01-01T00:00:00Z")
    clamp_run(store)
    shown = shown_by(clamp_page)
    assert len(shown.sidebar.selectbox[0].options) == 2
    assert f"{bad} has no prompt" in shown.error[0].value.replace("\\", "")


def test_a_run_of_an_earlier_version_has_one_prompt(store):
    clamp_run(store, {"prompt": "w5"})
    assert any("“w5”" in each.value for each in shown_by(clamp_page).caption)


HUB = "somebody/their-model"


@pytest.fixture
def asked_for(monkeypatch):
    """The hub ids that are fetched."""
    fetched = []

    def from_hub(name):
        fetched.append(name)
        raise catalog.UserError(f"there is no {name}")

    monkeypatch.setattr(catalog, "from_hub", from_hub)
    return fetched


def test_a_comparisons_model_is_fetched_only_when_the_visitor_says_so(store, asked_for):
    config = config_of(CompareConfig(), model=HUB)
    finish_by_hand(store, "othello.compare", config, version=2, seeds=[0], boards={})
    shown = shown_by(othello_page)
    assert asked_for == []
    assert HUB in shown.toggle[0].label.replace("\\", "")
    shown.toggle[0].set_value(True).run()
    assert asked_for == [HUB]
    assert f"there is no {HUB}" in shown.error[0].value.replace("\\", "")


def test_the_model_of_stored_directions_is_too(store, asked_for):
    index = pd.DataFrame({"name": [EVIL]})
    about = Provenance("test", HUB)
    scratch = store.parent / "set"
    Directions(Site("resid_post", 0), torch.randn(1, 32), index, about).save(scratch)
    made = {f"set/{path.name}": partial(shutil.copy, path) for path in scratch.iterdir()}
    run = finish_by_hand(store, "some.study", made=made)
    for page, params in (
        (directions_page, {}),
        (direction_page, {"direction": f"run:{run.name}:0"}),
        (direction_page, {"direction": f"run:{run.name}:0", "view": "nearest"}),
        (direction_page, {"direction": "1.down.3", "model": HUB}),
    ):
        asked_for.clear()
        shown = shown_by(page, **params)
        assert asked_for == []
        shown.toggle[0].set_value(True).run()
        assert set(asked_for) == {HUB}


RELEASE = "a-release:layer_0/sae"


@pytest.fixture
def saes_asked_for(monkeypatch):
    """The published SAEs that are fetched."""
    fetched = []

    def published(*name, **_):
        fetched.append(":".join(name[:2]))
        raise catalog.UserError("there is no network")

    for what in ("published", "published_metadata"):
        monkeypatch.setattr(f"interp.saes.open.{what}", published)
    return fetched


@pytest.mark.parametrize(
    ("page", "params"),
    [
        (direction_page, {"direction": "kept:sent:theirs", "view": "text", "run": "yes"}),
        (direction_page, {"direction": "kept:sent:theirs", "view": "examples", "run": "yes"}),
        (direction_page, {"direction": f"sae:{RELEASE}:3"}),
        (
            direction_page,
            {"direction": "1.down.3", "view": "nearest", "latents": "yes", "sae": RELEASE},
        ),
        (direction_page, {"direction": "1.down.3", "view": "split", "sae": RELEASE, "run": "yes"}),
        (prompt_page, {"text": "w5", "view": "A direction", "direction": "kept:sent:theirs"}),
        (prompt_page, {"text": "w5", "view": "A direction", "direction": f"sae:{RELEASE}:3"}),
        (steer_page, {"edits": f"steer-latent sae:{RELEASE}:3=2", "live": "yes"}),
    ],
)
def test_a_published_sae_is_fetched_only_when_the_visitor_says_so(
    page, params, store, dog_model, saes_asked_for
):
    index = pd.DataFrame({"name": ["theirs"], "latent": [3]})
    about = Provenance("sae", str(dog_model))
    vectors = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    keep_directions(
        "sent", Directions(Site("resid_post", 0), vectors, index, about, Encoder(RELEASE))
    )
    shown = shown_by(page, str(dog_model), **params)
    assert saes_asked_for == []
    (toggle,) = [t for t in shown.toggle if t.key == f"fetch {RELEASE}"]
    if "sae" in params:  # a test cannot send an option that was typed into a selectbox
        shown = AppTest.from_function(page, default_timeout=120)
        shown.session_state["fetched from the hub"] = {RELEASE}
        shown.session_state["chosen model"] = str(dog_model)
        for name, value in params.items():
            shown.query_params[name] = value
        shown.run()
    else:
        toggle.set_value(True).run()
    assert set(saes_asked_for) == {RELEASE}
    assert any("there is no network" in each.value for each in shown.error)


def test_a_kept_latent_is_decoded_without_its_sae(store, dog_model, saes_asked_for):
    index = pd.DataFrame({"name": ["theirs"], "latent": [3]})
    about = Provenance("sae", str(dog_model))
    given = Directions(Site("resid_post", 0), torch.randn(1, 32), index, about, Encoder(RELEASE))
    keep_directions("sent", given)
    shown = shown_by(direction_page, str(dog_model), direction="kept:sent:theirs")
    assert saes_asked_for == []
    assert not shown.error
    assert any(
        "standard deviations above" in each.value for each in [*shown.caption, *shown.markdown]
    )


def test_names_that_were_chosen_here_are_not_asked_about(own_home, model_folder):
    folder = str(model_folder("llama"))
    catalog.add("mine", folder)
    for name in ("smollm2-135m", "othello-gpt", "mine", folder, "no such model", ""):
        assert not catalog.asks_the_hub(name)
    assert catalog.asks_the_hub(HUB)
    adapter = own_home / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": HUB}))
    assert catalog.asks_the_hub(str(adapter))
