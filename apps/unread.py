"""What a page says of its address where it could not read all of it."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from urllib.parse import parse_qsl

import streamlit as st

from interp.analyses import Page
from interp.apps.address import CUT, knows_all, left, unread
from interp.apps.words import plain

OWN = "interp.apps."
"""Where the pages lie whose parameters are known."""


def about(page: Page, arrived: bool) -> None:
    """Say what of the URL a page did not take, after it is drawn."""
    for sentence in unread():
        st.warning(plain(sentence))
    if not arrived or not page.module.startswith(OWN):
        return
    shows = {name for _, before in page.shows for name, _ in parse_qsl(f"{before}key")}
    rest = [name for name in left() if name not in shows]
    if not knows_all():
        rest = [name for name in rest if not _a_parameter(name)]
    if rest:
        also = ", ".join(f"{name}={st.query_params[name]}"[:CUT] for name in rest[:5])
        st.caption(plain(f"The address also says {also}, which this page does not know."))


def _a_parameter(name: str) -> bool:
    """Whether any page has a parameter of this name: a tab that is not open, or a card that is not
    asked for, takes none."""
    return name.partition(" ")[0].lower() in _named()


@cache
def _named() -> frozenset[str]:
    """Every text that the app's functions are called with, which has the names of all parameters,
    and those that links give."""
    found: set[str] = set()
    for file in Path(__file__).parent.glob("*.py"):
        for call in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(call, ast.Call):
                if isinstance(call.func, ast.Name) and call.func.id in ("link", "go"):
                    found |= {each.arg for each in call.keywords if each.arg}
                found |= {text for part in call.args for text in _texts(part)}
    return frozenset(found)


def _texts(part: ast.expr) -> set[str]:
    inside = part.values if isinstance(part, ast.JoinedStr) else [part]
    texts = (each.value for each in inside if isinstance(each, ast.Constant))
    return {text.strip().lower() for text in texts if isinstance(text, str)}
