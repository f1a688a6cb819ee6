"""The page of SAE errors in a real browser, on stored runs of planted errors."""

import pytest

from interp.runs.store import Store

from ..darkmatter.planted import stored_runs

pytestmark = pytest.mark.browser


def test_errors_and_planted_faults(page, address, runs):
    stored_runs(Store(runs))
    page.goto(f"{address}/darkmatter")
    page.get_by_text("What the error is made of, over width").wait_for()
    page.get_by_text("What the parts cost the model").wait_for()
    page.get_by_text("fewer than three widths").wait_for()
    page.get_by_text("nonlinear over error").click()
    page.get_by_text("Reproduce this").first.click()
    page.get_by_text("interp darkmatter run --model othello-gpt --saes").wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").first.click()
    assert download.value.suggested_filename == "measures.csv"
    page.get_by_role("tab", name="Planted faults").click()
    page.get_by_text("FVU of the planted faults").wait_for()
    page.get_by_role("tab", name="SAEs of the error").click()
    page.get_by_text("No finished run of darkmatter.errors yet").wait_for()
