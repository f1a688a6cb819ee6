"""The circuits page in a real browser: a click in the picture, and the file that stands alone."""

import pytest

from ..circuits.planted import EVIL, write_run

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def circuit(runs):
    return write_run(runs)


def test_a_click_on_a_node_shows_its_card(page, address, circuit):
    page.goto(f"{address}/circuits")
    page.get_by_role("heading", name="2.down.5@4").wait_for()
    marks = page.locator(".js-plotly-plot").first.locator(".scatterlayer .points path")
    marks.first.wait_for()
    head = (
        page.locator(".js-plotly-plot .trace.scatter")
        .filter(has=page.locator(".points path"))
        .nth(1)
    )
    head.locator(".points path").first.click(force=True)
    page.get_by_role("heading", name="1.head.3@4:1").wait_for()
    page.get_by_text("Take away").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download HTML").click()
    assert "1.head.3@4:1" in download.value.path().read_text()


def test_the_file_that_stands_alone(browser, tmp_path):
    """Offline, with hostile tokens: sliders, a click, a walk along an edge; nothing is fetched."""
    from interp.circuits.html import page as document
    from interp.circuits.picked import opened
    from interp.runs.store import open_run

    file = tmp_path / "circuit.html"
    file.write_text(document(opened(open_run(write_run(tmp_path, EVIL, EVIL)))))
    page, asked, said = browser.new_page(), [], []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("console", lambda message: said.append(message.text))
    page.goto(file.as_uri())
    assert page.locator(".node").count() == 8
    page.locator("#nodes").fill("100")
    assert page.locator(".node").count() == 12
    page.locator("#edges").fill("100")
    assert page.locator("#hidden").inner_text() == "All nodes and edges of this file are shown."
    assert page.locator(".edge").count() == 14
    page.locator(".node.head").click()
    card = page.locator(".card")
    assert "1.head.3@4:1" in card.inner_text()
    assert EVIL[0] in card.inner_text()
    card.get_by_role("button", name="1.down.17@4").click()
    assert card.locator("h2").inner_text() == "1.down.17@4"
    assert page.locator(".edge.own").count() == 6
    page.locator(".node.chosen").hover()
    assert "attribution +2.750" in page.locator(".hover").inner_text()
    assert asked == [file.as_uri()]
    assert said == []
    page.close()
