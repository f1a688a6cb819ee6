"""Streamlit reads markdown in captions, messages, metrics and labels: nothing that a run, a model
or a file says goes there unescaped, since a picture in it is fetched by the visitor's browser."""

import ast
import re
from pathlib import Path

import pytest

from interp.analyses import analyses, load
from interp.apps.words import plain

from ..house.layers import ROOT

SHOWN = {
    **dict.fromkeys(
        ("title", "header", "subheader", "caption", "markdown", "write", "info", "warning"), 1
    ),
    **dict.fromkeys(("error", "success", "toast", "spinner", "status", "expander", "popover"), 1),
    **dict.fromkeys(("button", "download_button", "link_button", "form_submit_button"), 1),
    **dict.fromkeys(("toggle", "checkbox", "selectbox", "multiselect", "text_input"), 1),
    **dict.fromkeys(("text_area", "number_input", "slider", "select_slider", "feedback"), 1),
    **dict.fromkeys(("file_uploader", "date_input", "time_input", "color_picker", "tabs"), 1),
    **dict.fromkeys(("chat_message", "chat_input", "badge"), 1),
    **{"metric": 3, "radio": 2, "segmented_control": 2, "pills": 2},
}
"""How many of a method's first arguments are markdown."""
LABELLED = {"image", "page_link", "cache_data", "cache_resource"}
"""Methods with markdown in keywords alone."""
NAMED = {"label", "body", "help", "caption", "captions", "show_spinner", "value", "delta"}
"""Keywords that are."""
NUMBER = re.compile(r"[+,]?(\.\d+)?[,%efg]")
"""A format that only numbers have: a text in its place is an error."""


def safe(part: ast.expr) -> bool:
    """Whether a text is a page's own, or escaped."""
    if isinstance(part, ast.Constant):
        return True
    if isinstance(part, ast.Call):
        return isinstance(part.func, ast.Name) and part.func.id in ("plain", "chip", "chips")
    if isinstance(part, ast.JoinedStr):
        return all(map(safe, part.values))
    if isinstance(part, ast.FormattedValue):
        form = part.format_spec and ast.unparse(part.format_spec)[2:-1]
        return bool(form and NUMBER.fullmatch(form)) or safe(part.value)
    if isinstance(part, ast.BinOp):
        return safe(part.left) and safe(part.right)
    if isinstance(part, ast.IfExp):
        return safe(part.body) and safe(part.orelse)
    if isinstance(part, ast.List | ast.Tuple):
        return all(map(safe, part.elts))
    return isinstance(part, ast.ListComp) and safe(part.elt)


def _escapes(form: ast.expr | None) -> bool:
    """Whether a `format_func` makes every option safe: `plain`, or a lambda that ends in it."""
    if isinstance(form, ast.Lambda):
        return safe(form.body)
    return isinstance(form, ast.Name) and form.id == "plain"


def unescaped(source: str) -> list[str]:
    """The arguments in a page that Streamlit reads as markdown and that are no page's own text."""
    found = []
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            continue
        method, given = call.func.attr, {k.arg: k.value for k in call.keywords}
        if method not in SHOWN and method not in LABELLED:
            continue
        texts = call.args[: SHOWN.get(method, 0)]
        if method in ("radio", "segmented_control", "pills"):
            escaped = _escapes(given.get("format_func"))
            texts = texts[:1] if escaped else [*texts, *filter(None, [given.get("options")])]
        if method != "metric":
            given = {name: value for name, value in given.items() if name not in ("value", "delta")}
        texts += [value for name, value in given.items() if name in NAMED]
        found += [ast.unparse(text) for text in texts if not safe(text)]
    return found


LISTS = ("selectbox", "multiselect", "select_slider")


PLAIN_LISTS = ("listed", "placed", "called", "numbered", "printable", "visible", "exact")


def badly_listed(source: str) -> list[str]:
    """Lists whose options are not said by one of the functions for it: Streamlit reads no markdown
    there, so `plain` would show its signs, and what is said is all that tells options apart."""
    calls = [
        call
        for call in ast.walk(ast.parse(source))
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") in LISTS
    ]
    forms = [k.value for call in calls for k in call.keywords if k.arg == "format_func"]
    return [ast.unparse(form) for form in forms if not _names_plainly(form)]


def _names_plainly(form: ast.expr) -> bool:
    if isinstance(form, ast.Lambda):
        return _names_plainly(form.body)
    if isinstance(form, ast.Call):
        return _names_plainly(form.func)
    if isinstance(form, ast.IfExp):
        return _names_plainly(form.body)
    return isinstance(form, ast.Name) and form.id in PLAIN_LISTS


PAGES = sorted(ROOT.glob("apps/*.py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_what_is_shown_as_markdown_is_escaped(page: Path) -> None:
    assert unescaped(page.read_text()) == []
    assert badly_listed(page.read_text()) == []


def test_an_option_of_a_list_has_no_escapes() -> None:
    assert badly_listed("st.selectbox('a', kinds, format_func=plain)") == ["plain"]
    assert badly_listed("left.multiselect('a', ks, format_func=lambda k: plain(names[k]))")
    assert badly_listed("st.selectbox('a', ks, format_func=lambda p: Path(p).name)")
    assert not badly_listed("st.selectbox(plain(a), kinds, format_func=listed)")
    assert not badly_listed("st.selectbox(plain(a), range(3), format_func=numbered(names))")
    assert not badly_listed("st.radio('a', kinds, format_func=plain)")


@pytest.mark.parametrize(
    "line",
    [
        "st.caption(f\"{run.config['neuron']} held\")",
        "st.markdown('a' + word)",
        "column.metric(f'{visible(word)}', f'{x:.2f}')",
        "column.metric('word', text)",
        "st.metric(label='a', value=text)",
        "st.tabs(list(names))",
        "st.sidebar.radio('One of', kinds)",
        "st.pills('One of', options=kinds, format_func=str)",
        "st.pills('One of', kinds, format_func=lambda n: names[n])",
        "st.text_input('a', help=about)",
        "left.image(picture, caption=name)",
        "st.subheader(title)",
        "st.info(f'{x:>10}')",
        "st.write(readable(text))",
    ],
)
def test_a_value_without_plain_would_be_seen(line: str) -> None:
    assert unescaped(line)


@pytest.mark.parametrize(
    "line",
    [
        "st.caption(f'{plain(name)}: {n:,} of {share:.2%}, {x:.3g}')",
        "st.text(text)",
        "st.caption(plain(text) if text else 'none')",
        "st.sidebar.radio('One of', kinds, format_func=plain)",
        "st.pills('One of', kinds, format_func=lambda n: plain(names[n]))",
        "st.sidebar.radio('One of', ['a', 'b'], help='a')",
        "st.tabs([plain(x) for x in xs])",
        "column.metric(plain(name), f'{x:.3g}')",
        "column.text_input('Word', query)",
    ],
)
def test_a_pages_own_text_would_not(line: str) -> None:
    assert not unescaped(line)


def test_every_sign_of_markdown_is_escaped():
    evil = "![x](http://evil/b.png) [c](http://evil) $x^2$ `a` **b** :red[a] <b> ~~s~~ | # - 1. + &"
    shown = plain(evil)
    assert shown.replace("\\", "") == evil
    assert not re.search(r"[\\`*_{}\[\]()#+\-.!|$<>~:&]", re.sub(r"\\.", "", shown))
    assert plain("a\n\n# b\x1b\u202e") == r"a\\n\\n\# b\\x1b\\u202e"


@pytest.mark.parametrize(
    "page", [page for entry in analyses().values() for page in entry.pages], ids=lambda p: p.title
)
def test_a_mistake_on_a_page_is_said_in_place(page):
    assert hasattr(load(f"{page.module}:page"), "__wrapped__"), "@errors_in_place()"
