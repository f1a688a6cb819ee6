"""Every page for those who do not see it, or only with a keyboard: axe-core finds nothing, in light
and dark, and no page is wider than a phone."""

from pathlib import Path

import axe_playwright_python
import pytest

from interp.analyses import VERBS, analyses

pytestmark = pytest.mark.browser

PAGES = ["", *(page.address for entry in (VERBS | analyses()).values() for page in entry.pages)]
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
STREAMLIT = [
    ["[data-testid=stSidebarNav]"], ["[data-testid=stCode]"], ["[data-testid=stText]"],
    ["[class*=st-key-wide]"],
]  # fmt: skip
"""What no page can mend: the navigation's lists are groups, and boxes of code and of wide figures
scroll without being reached by Tab (Chromium reaches them by itself)."""


def violations(page):
    """What axe finds on a page, a line each."""
    page.evaluate(AXE)
    found = page.evaluate(
        "([rules, exclude]) => axe.run({exclude}, {runOnly: rules})", [RULES, STREAMLIT]
    )
    return [
        f"{each['id']}: {node['html'][:200]}"
        for each in found["violations"]
        for node in each["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser, empty_address, scheme):
    page = browser.new_page(viewport={"width": 420, "height": 1200}, color_scheme=scheme)
    found, wide = {}, {}
    for name in PAGES:
        page.goto(f"{empty_address}/{name}")
        page.get_by_role("heading", level=1).wait_for(timeout=60_000)
        page.locator("[data-test-script-state=notRunning]").wait_for(timeout=60_000)
        page.wait_for_timeout(300)  # what was there before fades out
        if lines := violations(page):
            found[name] = lines
        over = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        if over > 0:
            wide[name] = over
    page.close()
    assert not found, "\n".join(f"{name} {line}" for name in found for line in found[name])
    assert not wide
