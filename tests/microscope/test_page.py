"""The prompt page, without a browser: a text in an open model, and a stored look."""

import shlex
from urllib.parse import quote

import pandas as pd
import pytest
import torch
from streamlit.testing.v1 import AppTest

from interp.cli import parse
from interp.directions import Directions
from interp.directions.keeping import keep
from interp.latents.prompt import strongest, surveyed_sae, surveyed_subject
from interp.latents.survey import SurveyConfig
from interp.microscope.look import LookConfig
from interp.model.subject import open_subject
from interp.runs.store import Store
from interp.runs.study import run_or_load

from ..latents.planted import write_sae

TEXT = "w3 dog w5 w9"


def prompt_page():
    from interp.apps.prompt import page

    page()


@pytest.fixture
def shown(dog_model, own_home):
    page = AppTest.from_function(prompt_page, default_timeout=120)
    page.session_state["chosen model"] = str(dog_model)
    return page


def said(page):
    each = [*page.caption, *page.markdown, *page.info, *page.success, *page.error]
    return " ".join(every.value.replace("\\", "") for every in each)


def at(page, view, **state):
    page.session_state["?view"] = view
    for name, value in state.items():
        page.session_state[f"?{name}"] = value
    page.run()
    assert not page.exception
    return page


def test_nothing_is_loaded_without_a_text(shown, monkeypatch):
    monkeypatch.setattr("interp.apps.pool.borrowed", None)
    assert "Nothing is loaded yet" in shown.run().info[0].value
    assert not shown.exception


def test_a_blank_text_is_none(shown, monkeypatch):
    monkeypatch.setattr("interp.apps.pool.borrowed", None)
    shown.query_params["text"] = "   "
    assert "Nothing is loaded yet" in shown.run().info[0].value


def test_a_token_without_a_partner_has_empty_cells():
    from interp.apps.prompt_parts import _side

    both = pd.DataFrame(
        {
            "position": [0, -1, 1], "token": ["a", "", " b"], "probability": [None, None, 0.5],
            "other_position": [0, 1, 2], "other_token": ["a", "x", " b"],
            "other_probability": [None, 0.1, 0.5], "equal": [True, False, True],
        }
    )  # fmt: skip
    rows = _side(both)
    assert rows["position"].isna().tolist() == [False, True, False]
    assert rows["position there"].tolist() == [0, 1, 2]
    assert rows["token"].isna().tolist() == [False, True, False]
    assert rows["token"].dropna().tolist() == ["a", "␣b"]


def test_a_logit_s_tokens_are_spelled_as_elsewhere_on_the_page():
    from interp.microscope.names import spelled

    assert spelled("' Paris' - mean") == "␣Paris - mean"
    assert spelled(f"{' - '!r} - {chr(39) + 's'!r}") == "␣-␣ - 's"
    assert spelled(repr("\n")) == "⏎"
    assert spelled(repr("\\xe0")) == "\\xe0"


def test_a_click_moves_what_is_said(shown):
    shown.query_params["text"] = TEXT
    shown.run()
    assert not shown.exception
    assert "What the model says after w9 (position 3)" in said(shown)
    assert shown.pills[0].options == ["w3 ₀", "dog ₁", "w5 ₂", "w9 ₃"]
    for position, token in ((1, "dog"), (2, "w5"), (0, "w3")):
        shown.pills[0].set_value(position).run()
        assert f"What the model says after {token} (position {position})" in said(shown)
    following = "The text goes on with dog: probability"
    assert following in said(shown)


def test_a_new_text_is_looked_at_from_its_end(shown):
    shown.query_params["text"] = TEXT
    shown.run()
    shown.pills[0].set_value(1).run()
    shown.text_area[0].set_value("w1 w2").run()
    assert "after w2 (position 1)" in said(shown)
    shown.text_area[0].set_value("w1 w2 w3 w4 w5").run()
    assert "after w5 (position 4)" in said(shown)


VIEWS = {
    "Tokens": ({}, "The mean surprise is"),
    "Contributions": ({}, "The bars add up to"),
    "Neurons": ({}, "is the first: activation"),
    "Heads": ({}, "is the first: "),
    "Lens": ({}, "the lens says"),
    "A direction": ({"direction": "1.down.17"}, "The largest, in size, after the first token is"),
    "Side by side": ({"other": "w3 dog w6 w9", "position": 2}, "differs most: "),
    "Circuit": ({"position": 3}, "A circuit follows the paths"),
}


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_and_what_reproduces_it(shown, view):
    """Each says a number, its command parses, and its notebook call runs."""
    state, words = VIEWS[view]
    shown.query_params["text"] = TEXT
    at(shown, view, **{"position": 1, "target": "w5"} | state)
    assert not shown.error
    assert words in said(shown)
    given = [block.value for block in shown.code if block.language == "bash"]
    assert given
    for command in given:
        parse(shlex.split(command)[1:])
    if view in ("Contributions", "Side by side", "A direction"):
        calls = [block.value for block in shown.code if block.language == "python"]
        exec(calls[0], {})


def test_the_largest_part_may_be_the_embedding(shown, dog_model):
    run = run_or_load(LookConfig(str(dog_model), TEXT, target="w0"))
    parts = run.table("parts").query("position == 3").reset_index(drop=True)
    largest = parts.loc[parts["contribution"].abs().idxmax()]
    assert largest["kind"] == "embedding"
    shown.query_params["text"] = TEXT
    at(shown, "Contributions", position=3, target="w0")
    assert f"The largest is embedding with {largest['contribution']:+.2f}." in said(shown)
    within = parts[parts["kind"].isin(["attention", "MLP"])]
    sizes = within["contribution"].abs()
    share = sizes[within["layer"] == 1].sum() / sizes.sum()  # of two layers
    assert f"the last quarter of the layers has {share:.0%}." in said(shown)


@pytest.mark.parametrize(
    ("less", "named"),
    [("the mean of all", "w5 - mean"), ("nothing", "w5 after"), ("a token", "w5 - ")],
)
def test_what_the_logit_is_less_of(shown, less, named):
    shown.query_params["text"] = TEXT
    at(shown, "Contributions", position=1, target="w5", less=less)
    assert not shown.error
    assert f"to the logit of {named}" in said(shown)


def test_an_address_with_a_token_to_subtract(shown):
    shown.query_params["text"] = TEXT
    shown.query_params["target"], shown.query_params["against"] = "dog", "w7"
    at(shown, "Contributions")
    assert "to the logit of dog - w7" in said(shown)


def test_what_a_browser_may_send(shown):
    shown.query_params["text"] = TEXT
    at(shown, "Contributions", target="no such token")
    assert "is 3 tokens" in said(shown)
    at(shown, "A direction", target="", direction="nonsense")
    assert "names no neurons" in said(shown)
    at(shown, "Side by side", other=TEXT)
    assert "the other text is the same" in said(shown)
    at(shown, "Lens", lens="/etc/passwd")
    assert not shown.error
    at(shown, "Latents")
    assert "No SAE of this model is surveyed here" in said(shown)
    shown.text_area[0].set_value("w1 " * 401).run()
    assert "400 can be shown" in said(shown)


def test_a_look_is_stored_and_opens_without_the_model(shown, monkeypatch):
    shown.query_params["text"] = TEXT
    at(shown, "Tokens", other="w3 dog w6 w9")
    shown.button(key="store look").click().run()
    assert not shown.exception
    run = Store().newest(LookConfig.STUDY, "")
    assert run.config["other"] == "w3 dog w6 w9"
    assert f"Stored as {run.path.name}" in said(shown)
    monkeypatch.setattr("interp.apps.pool.borrowed", None)
    monkeypatch.setattr("interp.apps.pool.content", None)
    stored = AppTest.from_function(prompt_page, default_timeout=120)
    stored.query_params["of"] = "A stored look"
    for view in ("Tokens", "Contributions", "Neurons", "Heads", "Lens", "Side by side"):
        stored.session_state["?show"] = view
        stored.run()
        assert not stored.exception
        assert not stored.error
        stored.pills[0].set_value(1).run()
        assert not stored.error
    assert "as many tokens" in said(stored)


def test_the_circuit_of_the_chosen_token(shown):
    shown.query_params["text"] = TEXT
    at(shown, "Circuit", target="dog")
    shown.button(key="trace circuit").click().run()
    assert not shown.exception
    run = Store().newest("circuits.trace", "")
    assert run.metrics["explained"] == "'dog' - mean"
    assert f"/circuits?run={run.path.name}" in said(shown)
    at(shown, "Circuit", less="nothing")
    assert "less something" in said(shown)


def test_latents_of_a_surveyed_sae(shown, dog_model, tmp_path):
    source = write_sae(tmp_path / "sae", dog_model)
    (tmp_path / "text.txt").write_text("w1 w2 dog w4 " * 30)
    sizes = {"corpus": str(tmp_path / "text.txt"), "tokens": 60, "length": 10, "k": 3}
    survey = run_or_load(SurveyConfig(model=str(dog_model), saes=str(source), **sizes))
    shown.query_params["text"] = TEXT
    at(shown, "Latents")
    assert not shown.error, said(shown)
    assert "is the largest" in said(shown)
    rows = strongest(survey, surveyed_subject(survey), surveyed_sae(survey), TEXT, 10)
    expected = rows[rows["position"] == 3]["latent"].tolist()
    assert [int(each) for each in shown.selectbox(key="?latent").options] == expected
    assert f"direction=sae%3A{quote(str(source), safe='')}%3A{expected[0]}" in said(shown)


def test_a_set_that_is_too_large_says_what_is_left_out(shown, dog_model, tmp_path):
    Directions.of(torch.randn(40, 32), "1.resid_post", str(dog_model), "v").save(tmp_path / "set")
    shown.query_params.update({"text": TEXT, "which": "33", "direction": str(tmp_path / "set")})
    at(shown, "A direction")
    assert "Only the first 20 of 40 directions. Name the others themselves." in said(shown)
    assert "Only the first" not in said(
        at(shown, "A direction", direction=f"{tmp_path / 'set'}:33")
    )


def test_two_directions_of_one_name_are_two(shown, dog_model, own_home):
    """Each is scored by itself, as neurons are: activations of down 17 and 5."""
    for number in (17, 5):
        keep("twin", f"1.down.{number}", model=str(dog_model), title="same")
    shown.query_params["text"] = TEXT
    opened = open_subject(str(dog_model))
    active = opened.capture(opened.tokens(TEXT), ["1.mlp_post"])
    own = next(iter(active.values()))[0, 3]
    for which, number in ((0, 17), (1, 5)):
        at(shown, "A direction", direction="kept:twin", which=which)
        assert shown.selectbox(key="?which").options == ["0: same", "1: same"]
        assert f"The score of the chosen token is {float(own[number]):.3g}." in said(shown)
