"""The page on heads and patching: what it shows of runs, what its forms make, and that what it
gives to reproduce them works."""

import shlex

import pytest
from streamlit.testing.v1 import AppTest

from interp.circuits.heads import HeadConfig
from interp.circuits.patching import PatchConfig
from interp.circuits.roles import RolesConfig
from interp.cli import parse
from interp.runs.store import Store
from interp.runs.study import run_or_load

from .views import in_each, opened

PAGE = "from interp.apps.heads import page\npage()"
PAIR = {"prompt": "w3 dog w5", "counterfactual": "w3 w9 w6", "target": "dog", "against": "w7"}


@pytest.fixture(scope="module")
def store(dog_model, tmp_path_factory):
    root, model = tmp_path_factory.mktemp("heads"), str(dog_model)
    for study in (
        PatchConfig(model, **PAIR, site="head_z", at="each"),
        HeadConfig(model, prompt="w3 dog w5", head="1.2", target="dog", sample=20),
        RolesConfig(model, length=5, sequences=2),
    ):
        run_or_load(study, Store(root))
    return root


@pytest.fixture
def shown(store, monkeypatch):
    monkeypatch.setenv("INTERP_RUNS", str(store))
    page = AppTest.from_string(PAGE, default_timeout=120).run()
    assert not page.exception
    assert not page.error
    return page


def test_patched_at_all_positions_at_once_nothing_is_said_of_tokens(dog_model, own_home):
    run_or_load(PatchConfig(str(dog_model), **PAIR, site="head_z", at="all"))
    page = AppTest.from_string(PAGE, default_timeout=120).run()
    assert not page.exception
    assert not {"token", "other"} & set(page.dataframe[0].value.columns)
    assert "head" in page.dataframe[0].value.columns
    said = " ".join(caption.value for caption in page.caption)
    assert "place beyond 1" in said
    assert "token that differs" not in said


TABS = {
    "Patching": "head_z of the other prompt, patched into the prompt. The target, 'dog' - 'w7', is",
    "A head": "head 1.2, lens raw. The terms of its layer add up to attn_out within",
    "Every head": "5 random tokens said twice",
}


@pytest.mark.parametrize("tab", TABS)
def test_it_shows_what_is_stored(shown, tab):
    opened(shown, tab)
    said = " ".join(caption.value for caption in shown.caption).replace("\\", "")
    assert TABS[tab] in said
    for radio in shown.radio:
        for option in radio.options:
            radio.set_value(option).run()
    for slider in shown.select_slider:
        slider.set_value(0).run()
    assert not shown.exception
    assert not shown.error


def test_what_it_gives_to_reproduce_them_works(shown):
    studies = []
    for page in in_each(shown, *TABS):
        code = [(block.language, block.value) for block in page.code]
        commands = [value for language, value in code if language == "bash"]
        studies += [command.split()[1:3] for command in commands]
        for command in commands:
            parse(shlex.split(command)[1:])
        calls = [value for language, value in code if language == "python"]
        assert len(calls) == 2
        for call in calls:
            exec(call, {})
    assert studies == [["circuits", "patch"], ["circuits", "head"], ["circuits", "roles"]]


def field(shown, label):
    """The first of this label: that of the first tab."""
    return next(box for box in shown.main.text_input if box.label == label)


def test_a_form_makes_a_run_and_says_a_mistake_in_place(shown, dog_model):
    for label, value in {
        "Prompt": "w1 w2", "Counterfactual, of as many tokens": "w1 w4 w5",
        "Target token, with its space": "w7", "Less the token (else the mean of all)": "",
        "Model": str(dog_model),
    }.items():  # fmt: skip
        field(shown, label).set_value(value)
    shown.main.button[0].click().run()
    assert "2 and 3 tokens" in shown.error[0].value.replace("\\", "")
    field(shown, "Prompt").set_value("w1 w2 w5")
    shown.main.button[0].click().run()
    assert not shown.error
    assert not shown.exception
    assert "The target, 'w7' - mean, is" in shown.main.caption[1].value.replace("\\", "")
