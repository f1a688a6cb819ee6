"""A page's tabs in a test: only the open one is made."""

from collections.abc import Iterator

from streamlit.testing.v1 import AppTest


def in_each(shown: AppTest, *titles: str) -> Iterator[AppTest]:
    """The page with each of its tabs open in turn; without titles, as it is."""
    if not titles:
        yield shown
    for title in titles:
        yield opened(shown, title)


def opened(shown: AppTest, title: str) -> AppTest:
    """The page with a tab open."""
    shown.session_state["?view"] = title
    return shown.run()
