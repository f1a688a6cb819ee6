"""A report in a real browser, without a network: as it is written, and as a page gives it."""

import time

import pytest

from ..circuits.planted import write_run
from ..report.made import EVIL, evil
from .conftest import PATIENCE

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def circuit(runs):
    return write_run(runs)


@pytest.fixture
def offline(browser):
    """`offline(file, **context)` -> a page that shows a file; nothing may be asked or said."""
    contexts = []

    def open_file(file, **more):
        context = browser.new_context(offline=True, **more)
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page, asked = context.new_page(), []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: asked.append(message.text))
        page.on("pageerror", lambda error: asked.append(str(error)))
        page.on("dialog", lambda dialog: asked.append(dialog.message))
        page.goto(file.as_uri())
        page.locator(".js-plotly-plot .main-svg").first.wait_for()
        assert asked == [file.as_uri()]
        return page

    yield open_file
    for context in contexts:
        context.close()


def test_a_hostile_report_opens_offline_in_dark_and_narrow(offline, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(evil())
    page = offline(file, color_scheme="dark", viewport={"width": 420, "height": 900})
    assert page.locator(".js-plotly-plot").count() == 2
    assert EVIL.split(chr(0x202E))[0] in page.locator("h1").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") == 420
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == "rgb(14, 17, 23)"
    scale = page.evaluate("document.querySelector('.js-plotly-plot').data[0].colorscale")
    assert scale[0][1] == "#12161d"
    assert page.title().startswith("<img src=")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save 3 rows as CSV").click()
    assert len(download.value.path().read_text().splitlines()) >= 4
    page.emulate_media(color_scheme="light")
    until(page, "document.querySelector('.js-plotly-plot').data[0].colorscale[0][1] === '#ffffff'")


def until(page, true):
    """Wait; Playwright's own way is `eval` in the page, which the policy forbids."""
    deadline = time.monotonic() + PATIENCE / 1000
    while not page.evaluate(true):
        assert time.monotonic() < deadline, true
        time.sleep(0.05)


def test_the_policy_forbids_the_network(offline, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(evil())
    page = offline(file)
    page.evaluate(
        "addEventListener('securitypolicyviolation', e => { window.forbidden = e.blockedURI })"
    )
    page.evaluate("fetch('http://127.0.0.1:9/').catch(() => 0)")
    until(page, "window.forbidden === 'http://127.0.0.1:9/'")


def test_a_view_is_exported_and_opens_offline(page, address, circuit, offline, tmp_path):
    page.goto(f"{address}/circuits")
    page.get_by_role("heading", name="2.down.5@4").wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="HTML report").last.click()
    file = tmp_path / "view.html"
    file.write_bytes(download.value.path().read_bytes())
    assert file.stat().st_size < 5_000_000
    shown = offline(file)
    assert shown.locator(".js-plotly-plot").count() >= 1
    assert circuit.name in shown.locator("footer").inner_text()
    assert "1.head.3@4:1" in shown.locator("table").first.inner_text()
