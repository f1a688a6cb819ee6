"""Acting by latents on the steering page: what it shows, and that it can be reproduced."""

import shlex

import pytest
from streamlit.testing.v1 import AppTest

from interp.cli import parse
from interp.latents.survey import SurveyConfig
from interp.runs.store import Store
from interp.runs.study import run_or_load

from ..latents.planted import write_sae

PAGE = "from interp.apps.steer import page\npage()"


@pytest.fixture(scope="module")
def store(dog_model, tmp_path_factory):
    """A survey of the SAE whose latent 7 writes 'dog'."""
    root = tmp_path_factory.mktemp("acting")
    corpus, source = root / "text.txt", write_sae(root / "sae", dog_model)
    corpus.write_text(" ".join(f"w{i % 211}" for i in range(700)))
    sizes = {"tokens": 400, "length": 40, "neurons": 0, "corpus": str(corpus)}
    run_or_load(SurveyConfig(model=str(dog_model), saes=str(source), **sizes), Store(root))
    return root


def opened(act):
    shown = AppTest.from_string(PAGE, default_timeout=60).run()
    shown.segmented_control[0].set_value("Act by a latent").run()
    shown.main.text_input[0].set_value("w1 w2")
    next(box for box in shown.segmented_control if box.label == "Act").set_value(act)
    for toggle in shown.toggle:
        toggle.set_value(toggle.key == "run act")
    if act != "splice":
        shown.number_input[0].set_value(7)
    return shown.run()


@pytest.mark.parametrize("act", ["steer", "clamp", "ablate", "splice"])
def test_a_latent_s_act_is_shown_and_reproduced(act, store, monkeypatch):
    monkeypatch.setenv("INTERP_RUNS", str(store))
    shown = opened(act)
    if act in ("steer", "clamp"):
        shown.slider[0].set_value(shown.slider[0].max).run()
    assert not shown.exception
    assert not shown.error
    said = [caption.value for caption in shown.caption]
    if act != "splice":
        assert any("It raises dog" in caption for caption in said)
    code = {block.language: block.value for block in shown.code}
    parse(shlex.split(code["bash"])[1:])
    scope = {}
    call = code["python"].replace("\nacted(", "\nrows = acted(")
    exec(call, scope)
    after = [block.value for block in shown.text if block.value]
    assert scope["rows"]["text"].tolist() == after[:2]
    if act in ("steer", "clamp"):
        assert scope["rows"]["next"].iloc[1] == "dog"


def test_without_a_survey_one_is_asked_for(own_home):
    shown = AppTest.from_string(PAGE, default_timeout=60).run()
    shown.segmented_control[0].set_value("Act by a latent").run()
    assert not shown.exception
    assert "interp saes survey --runs " in shown.code[0].value
