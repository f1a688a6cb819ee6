"""Every page for those who do not see it, or only with a keyboard: axe-core finds nothing, in light
and dark, and no page is wider than a phone."""

from pathlib import Path

import axe_playwright_python
import pytest

from interp.analyses import VERBS, analyses

pytestmark = pytest.mark.browser

PAGES = [page.address for entry in (VERBS | analyses()).values() for page in entry.pages]
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
STREAMLIT = [
    ["[data-testid=stSidebarNav]"], ["[data-testid=stCode]"], ["[data-testid=stText]"],
    ["[class*=st-key-wide]"],
]  # fmt: skip
"""What no page can mend: the navigation's lists are groups, and boxes of code and of wide figures
scroll without being reached by Tab (Chromium reaches them by itself)."""


SCHEMES = {"light": RULES, "dark": ["color-contrast", "link-in-text-block"]}
"""Of each the rules that are asked: in the dark nothing but colours is another."""
DONE = """before => ![undefined, before].includes(document.querySelector('h1')?.innerText)
    && !document.querySelector('[data-test-script-state=running], [data-stale=true]')"""
"""Another page than the one of this title is there, and the server has no more to say."""
PAINTED = """scheme => {
    const ground = getComputedStyle(document.querySelector('.stApp')).backgroundColor
    const light = Math.max(...ground.match(/[0-9]+/g)) > 127
    return light === (scheme === 'light') && !document.getAnimations().some(
        each => each.playState === 'running' && each.effect.getTiming().iterations < Infinity
    )
}"""
"""The page has the colours of this scheme, and nothing fades in or out; what goes round for ever
may."""


def violations(page, rules):
    """What axe finds on a page by these rules, a line each."""
    found = page.evaluate(
        "([rules, exclude]) => axe.run({exclude}, {runOnly: rules})", [rules, STREAMLIT]
    )
    assert found["passes"] or found["violations"], "nothing was looked at"
    return [
        f"{each['id']}: {node['html'][:200]}: {node['failureSummary'][:300]}"
        for each in found["violations"]
        for node in each["nodes"]
    ]


def visited(page, address):
    """The name of every page, with that page open: the start page by its address, the others by
    their links in the navigation, which load nothing anew."""
    page.goto(address)
    page.wait_for_function(DONE)
    page.evaluate(AXE)
    yield ""
    for name in PAGES:
        before = page.locator("h1").inner_text()
        link = page.locator(f"[data-testid=stSidebarNavLink][href$='/{name}']")
        link.evaluate("link => link.click()")  # at this width the navigation is folded away
        page.wait_for_url(f"{address}/{name}*")
        page.wait_for_function(DONE, arg=before)
        yield name


def test_axe_finds_nothing(page, empty_address):
    page.set_viewport_size({"width": 420, "height": 1200})
    found, wide = [], {}
    for name in visited(page, empty_address):
        for scheme, rules in SCHEMES.items():
            page.emulate_media(color_scheme=scheme)
            page.wait_for_function(PAINTED, arg=scheme)
            found += [f"{name} ({scheme}) {line}" for line in violations(page, rules)]
        over = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        if over > 0:
            wide[name] = over
    assert not found, "\n".join(found)
    assert not wide
