"""A prompt in a real browser: type it, click a token, see its neurons, a second text, back,
forward."""

import re

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


def test_a_prompt_is_typed_and_a_token_clicked(page, address, dog_model):
    page.goto(f"{address}/prompt?model={dog_model}")
    text = page.get_by_label("Text", exact=True)
    text.fill("w3 dog w5 w9")
    text.press("Control+Enter")
    page.get_by_text("What the model says after w9 (position 3)").wait_for()
    page.get_by_role("tab", name="Neurons").click()
    page.get_by_text("The neurons with the largest contribution").wait_for()
    page.locator(".st-key-prompt-position button", has_text="dog").click()
    page.get_by_text("in size, after dog (position 1)").wait_for()
    page.get_by_text(re.compile(r"is the first: activation -?\d")).wait_for()
    expect(page).to_have_url(re.compile(r"text=w3\+dog\+w5\+w9.*position=1|position=1.*text=w3"))
    text.fill("w3 dog w6")
    text.press("Control+Enter")
    page.get_by_text("in size, after w6 (position 2)").wait_for()
    page.go_back()
    page.get_by_text("in size, after dog (position 1)").wait_for()
    expect(text).to_have_value("w3 dog w5 w9")
    page.go_forward()
    page.get_by_text("in size, after w6 (position 2)").wait_for()
    expect(text).to_have_value("w3 dog w6")


def test_a_token_is_reached_with_the_keyboard(page, address, dog_model):
    page.goto(f"{address}/prompt?model={dog_model}&text=w3+dog+w5")
    page.get_by_text("What the model says after w5 (position 2)").wait_for()
    page.locator(".st-key-prompt-position button").first.focus()
    page.keyboard.press("Enter")
    page.get_by_text("What the model says after w3 (position 0)").wait_for()


def test_a_second_text_from_its_address(page, address, dog_model):
    other = "other=w3+dog+w6&view=Side+by+side"
    page.goto(f"{address}/prompt?model={dog_model}&text=w3+dog+w5&{other}")
    page.get_by_text("Position 2 here is 2 there").wait_for()
    page.get_by_text("differs most").first.wait_for()


def test_a_token_that_is_there_twice_is_two(page, address, dog_model):
    page.goto(f"{address}/prompt?model={dog_model}&text=w9+w3+w9+w9")
    page.get_by_text("What the model says after w9 (position 3)").wait_for()
    buttons = page.locator(".st-key-prompt-position button")
    for position in (0, 2, 3):
        buttons.nth(position).click()
        page.get_by_text(f"What the model says after w9 (position {position})").wait_for()
        expect(page.locator(".st-key-prompt-position button[aria-checked=true]")).to_have_count(1)
