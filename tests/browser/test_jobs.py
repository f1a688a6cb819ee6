"""A study is started from its form, watched, cancelled, resumed, and its page opened."""

import pytest
from playwright.sync_api import expect

from interp.runs.jobs import all_jobs

from ..runs.test_jobs import until
from .conftest import settle

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def model(model_folder):
    """One whose atlas takes some seconds."""
    return model_folder("llama", vocab_size=20_000, intermediate_size=640, num_hidden_layers=24)


def test_a_study_from_the_form_to_its_page(page, serve, tmp_path_factory, model):
    runs = tmp_path_factory.mktemp("queue")
    page.goto(f"{serve(runs)}/new?study=neurons.atlas&model={model}")
    settle(page)  # nobody is as quick as to type into a form that is still being drawn
    number = page.get_by_role("spinbutton", name="K", exact=True)
    number.fill("3")
    number.press("Enter")
    page.get_by_text(f"--k 3 --runs {runs}").wait_for()
    page.get_by_test_id("stMain").get_by_role("button", name="Start").click()
    page.get_by_role("heading", name="Jobs").wait_for()
    page.get_by_text("1 running: neurons.atlas").wait_for()
    page.get_by_text("vectors/s").first.wait_for()
    page.get_by_text("Log", exact=True).click()
    page.get_by_text("vectors through 20,000 tokens", exact=False).wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("the same command resumes with", exact=False).first.wait_for()
    page.get_by_role("button", name="Start again").click()
    page.get_by_text("the same command resumes with", exact=False).wait_for(state="detached")
    page.goto("about:blank")  # nobody looks any more
    (job,) = until(lambda: [job for job in all_jobs(runs)[0] if job.state == "finished"])
    page.goto(f"{serve(runs)}/jobs")  # another server, of the same store
    page.get_by_role("link", name="Open the run").click()
    page.get_by_role("heading", name="Neuron atlas").wait_for()
    page.wait_for_url(f"**/atlas?*run={job.run.name}*")
    page.get_by_role("textbox", name="Find a word").wait_for()
    page.goto(page.url.partition("/atlas")[0] + f"/new?study=neurons.atlas&model={model}&k=3")
    page.get_by_text("This run is there already").wait_for()


def test_another_study_has_its_own_settings(page, empty_address):
    page.goto(f"{empty_address}/new?study=neurons.atlas&k=20&norm=final")
    number = page.get_by_role("spinbutton", name="K", exact=True)
    expect(number).to_have_value("20")
    page.get_by_text("interp neurons atlas --norm final --k 20").wait_for()
    page.get_by_test_id("stMain").get_by_role("button", name="Start").wait_for()  # all is drawn
    study = page.get_by_role("combobox", name="Study")
    study.fill("circuits.head")
    page.get_by_role("option", name="circuits.head").first.click()
    page.get_by_text("interp circuits head --runs").wait_for()
    expect(number).to_have_value("10")
    assert "norm=" not in page.url
    page.go_back()
    page.get_by_text("interp neurons atlas --norm final --k 20").wait_for()
    expect(number).to_have_value("20")
    number.fill("9")
    number.press("Enter")
    page.wait_for_url("**k=9*")
    page.get_by_text("interp neurons atlas --norm final --k 9").wait_for()
