"""Steering in a real browser: edits by hand, two windows at once, a stream that is cut off."""

import shutil
from urllib.parse import quote

import pytest

from interp.directions.acts import edits_of, parse_act
from interp.directions.steering import compared
from interp.model.subject import open_subject

from ..conftest import make_dog_model

pytestmark = pytest.mark.browser
PROMPT = "w1 w2"


@pytest.fixture(scope="module")
def long_model(model_folder, tmp_path_factory):
    """A dog model whose texts can be long enough to be interrupted."""
    folder = tmp_path_factory.mktemp("long") / "model"
    shutil.copytree(
        model_folder("llama", max_position_embeddings=1024, num_hidden_layers=16), folder
    )
    make_dog_model(folder)
    return folder


@pytest.fixture(scope="module")
def subject(long_model):
    return open_subject(long_model)


def both(subject, model, edit, tokens):
    """The two texts, from the model alone."""
    edits = edits_of([parse_act(edit)], subject, str(model))
    return compared(subject, edits, [PROMPT], chat=False, tokens=tokens)["text"].tolist()


def where(address, model, edits="", tokens=5, live="yes"):
    given = {"model": model, "text": PROMPT, "chat": "no", "tokens": tokens, "live": live}
    if edits:
        given["edits"] = edits
    return f"{address}/steer?" + "&".join(f"{k}={quote(str(v))}" for k, v in given.items())


def test_the_model_runs_only_when_asked(page, context, address, dog_model):
    page.goto(where(address, dog_model, live="no"))
    page.get_by_text("Nothing is loaded yet").wait_for()
    neuron = page.get_by_role("textbox", name="Neuron")
    neuron.fill("1.down.17")
    neuron.press("Enter")
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_text("Hold a neuron: 1.down.17").wait_for()
    page.get_by_text("Run the model").click()
    page.get_by_text("dogdogdogdogdog", exact=True).wait_for()
    page.get_by_text("The next token").wait_for()
    page.wait_for_url("**edits=hold*1.down.17*")
    page.get_by_role("slider", name="On a sample of text").focus()
    page.keyboard.press("Home")
    page.get_by_text("dogdogdogdogdog", exact=True).wait_for(state="detached")
    page.get_by_text("Reproduce this").click()
    page.get_by_text("interp steer 'hold 1.down.17=-").wait_for()
    link = page.url
    other = context.new_page()
    other.goto(link)
    other.get_by_text("Hold a neuron: 1.down.17").wait_for()
    other.get_by_text("The next token").wait_for()
    shown = [p.get_by_test_id("stText").all_inner_texts() for p in (page, other)]
    assert shown[0] == shown[1]
    other.close()


def test_a_typo_leaves_the_page_on(page, address, dog_model):
    page.goto(where(address, dog_model, "hold dog=3;hold 1.down.17=50"))
    page.get_by_text("'dog' names no neuron").wait_for()
    page.get_by_text("dogdogdogdogdog", exact=True).wait_for()
    page.get_by_role("button", name="Remove").first.click()
    page.get_by_text("'dog' names no neuron").wait_for(state="detached")
    page.get_by_text("dogdogdogdogdog", exact=True).wait_for()


def test_two_windows_at_once_do_not_see_each_other(context, address, long_model, subject):
    wishes = ["hold 1.down.17=50", "add 1.down.4=30", "hold 1.down.17=49", "add 1.down.4=29"]
    want = {wish: both(subject, long_model, wish, 30) for wish in wishes}
    pages = [context.new_page() for _ in range(2)]
    for pair in (wishes[:2], wishes[2:]):
        for window, wish in zip(pages, pair, strict=True):
            window.goto(where(address, long_model, wish, 30), wait_until="commit")
        for window, wish in zip(pages, pair, strict=True):
            window.get_by_text("Download CSV").wait_for()
            assert window.get_by_test_id("stText").all_inner_texts() == want[wish]
    for window in pages:
        window.close()


def test_a_stream_that_is_cut_off_leaves_the_model_free(
    page, context, address, long_model, subject
):
    """The window asks for something else, and then goes away, each in the middle of a text."""
    page.goto(where(address, long_model, "add 1.down.9=31", 400))
    page.get_by_text("▌").first.wait_for()
    page.get_by_text("Add a direction: 1.down.9").click()  # switches it off
    page.get_by_text("There is no edit that is on").wait_for()
    page.get_by_text("Add a direction: 1.down.9").click()
    page.get_by_text("▌").first.wait_for()
    page.goto("about:blank")
    window = context.new_page()
    window.goto(where(address, long_model, "hold 1.down.17=48", 5))
    window.get_by_text("dogdogdogdogdog", exact=True).wait_for()
    shown = window.get_by_test_id("stText").all_inner_texts()
    assert shown == both(subject, long_model, "hold 1.down.17=48", 5)
    window.close()
