"""A page's address is its state: what a page shows stands in its URL, so a link restores the view,
and the browser's back and forward go through the views.

The URL is read where it is not what the page left there itself: on a link, a bookmark, back and
forward. Otherwise the widgets are right, and the URL is written when the page ends, as one step of
the history. A page that was just arrived at writes nothing new, or "back" would lead to itself; but
it says again what a link within the app asked for, since Streamlit gives a link's parameters to the
page and not to the browser, which takes no step where its URL is the same already.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn
from urllib.parse import urlencode

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

_PAGE, _LEFT, _SEEN = "address: page", "address: left", "address: seen"
_BOUND, _UNREAD, _KNOWN = "address: bound", "address: unread", "address: known"
_ALL, _KEPT = "address: all known", "address: kept"
CUT = 80
"""Letters of what an address says, in a sentence about it."""


class _Bound(NamedTuple):
    """A widget whose value is a parameter of the URL; as `bound` takes it."""

    key: str
    usual: Any = None
    always: bool = True
    instead: Collection[str] = ()
    said: Mapping[str, Any] = {}


@contextmanager
def followed(page: str) -> Iterator[bool]:
    """Around a page's function: whether it was just arrived at. `page` is its address."""
    _understand()
    state, here = st.session_state, (page, _given())
    arrived = state.get(_LEFT) != here and (_by_history() or not _clicked(page))
    followed_here = arrived and state.get(_LEFT) is not None
    state[_LEFT] = here  # now: a click may stop this run, and the next one has not arrived
    if arrived:
        if followed_here and here[1]:  # of a link's parameters the browser knows nothing yet
            st.query_params.from_dict(here[1])
        for key in [key for key in state if str(key).startswith(f"{page}?")]:
            del state[key]
        state[_SEEN], state[_UNREAD] = None, {}
    else:  # at once: another click may come before this run ends, and would bring the old URL
        _write(page)
        _see(page)
    state[_PAGE], state[_BOUND], state[_KNOWN], state[_ALL] = page, {}, set(), False
    yield arrived
    if not arrived:
        _write(page)
    _see(page)


def _understand() -> None:
    """A list says more of its options once there are more to tell apart. A browser sends the words
    of the one that is chosen, which may still be the old ones."""
    state = st.session_state
    for each in state.get(_BOUND, {}).values():
        value = state.get(each.key)
        if isinstance(value, str) and value in each.said:
            state[each.key] = each.said[value]


def _see(page: str) -> None:
    """Note what the widgets say now."""
    keys = [each.key for each in st.session_state.get(_BOUND, {}).values()]
    st.session_state[_SEEN] = page, {k: st.session_state[k] for k in keys if k in st.session_state}


def _by_history() -> bool:
    """Whether the browser's back or forward led here. Its widgets may then have values of before
    the page that was left, which nobody chose: a value from the server takes a moment to arrive."""
    context = get_script_run_ctx()
    return context is not None and context.is_history_navigation


def _clicked(page: str) -> bool:
    """Whether a widget has another value than this page left it with: then its visitor was too
    quick for the URL that the page wrote last, and has not gone back to the one before."""
    before, values = st.session_state.get(_SEEN) or ("", {})
    return bool(
        before == page
        and any(st.session_state.get(key, value) != value for key, value in values.items())
    )


def _write(page: str) -> None:
    """Put the widgets' values into the URL. One of a widget that is not drawn now stays."""
    kept, given = st.session_state.pop(_KEPT, None), _given()
    given = {name: value for name, value in given.items() if kept is None or name in kept}
    for name, each in st.session_state.get(_BOUND, {}).items():
        if each.key not in st.session_state:
            continue
        value = st.session_state[each.key]
        if value is None or (_same(value, each.usual) and not each.always):
            given.pop(name, None)
        else:
            given[name] = _written(value)
            for other in each.instead:
                given.pop(other, None)
    if given != _given():
        st.query_params.from_dict(given)
    st.session_state[_LEFT] = (page, given)


def _given() -> dict[str, str | list[str]]:
    """What the URL says: of a parameter that stands in it more than once, every value."""
    every = {name: st.query_params.get_all(name) for name in st.query_params}
    return {name: values[0] if len(values) == 1 else values for name, values in every.items()}


def query() -> str:
    """What the URL says after its question mark: every value of every parameter."""
    return urlencode(_given(), doseq=True)


def _same(value: Any, usual: Any) -> bool:
    if isinstance(value, list | tuple) and isinstance(usual, list | tuple):
        return list(value) == list(usual)  # a widget gives a list, whatever its usual value is
    return bool(value == usual)


def bound(
    name: str,
    usual: Any,
    options: Collection[Any] | None = None,
    read: Callable[[str], Any] | None = None,
    always: bool = False,
    instead: Collection[str] = (),
    said: Mapping[str, Any] | None = None,
) -> str:
    """The key of a widget whose value is the URL's parameter `name`: the widget gets no default of
    its own.

    Args:
        usual: its value where the URL says none; then it does not stand in the URL either.
        options: what it may be; anything else, from a URL or a browser, becomes the usual.
        read: from the URL's text; by default as the usual value's type has it.
        always: it stands in the URL even as usual, once anything was changed: "the newest run" is
            another one tomorrow.
        instead: parameters that it began with, and that leave the URL once it stands there.
        said: the options by what a list has called them in this visit, where that may change.
    """
    key = f"{st.session_state.get(_PAGE, '')}?{name}"
    if key not in st.session_state:
        st.session_state[key] = _read(name, usual, options, read)
        if not always:  # of those the page says more
            _note(name, st.session_state[key], usual)
    elif options is not None and st.session_state[key] not in options:
        st.session_state[key] = usual
    st.session_state.setdefault(_BOUND, {})[name] = _Bound(key, usual, always, instead, said or {})
    return key


def shared(name: str, key: str) -> None:
    """The widget of this key is on every page, and its value stands in the URL."""
    st.session_state.setdefault(_BOUND, {})[name] = _Bound(key)


def begin_anew(*kept: str) -> None:
    """For a widget's callback: of the page's parameters these stay, and its other widgets are as on
    arrival. The URL takes one step with what else the click changed."""
    page = here()
    for key in [key for key in st.session_state if str(key).startswith(f"{page}?")]:
        if key not in {f"{page}?{name}" for name in kept}:
            del st.session_state[key]
    st.session_state[_KEPT] = kept


def _read(
    name: str, usual: Any, options: Collection[Any] | None, read: Callable[[str], Any] | None
) -> Any:
    text = st.query_params.get(name)
    if text is None:
        return usual
    try:
        value = (read or _reader(usual))(text)
    except ValueError:
        return usual
    if options is None or value in options:
        return value
    return next((each for each in options if str(each) == text), usual)


def _reader(usual: Any) -> Callable[[str], Any]:
    """How a text becomes a value of the usual one's type."""
    if isinstance(usual, bool):
        return _yes
    if isinstance(usual, int | float):
        return type(usual)
    if isinstance(usual, tuple | list):
        return lambda text: type(usual)(text.split(",") if text else ())
    return str


def _yes(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError(text)
    return text == "yes"


def _note(name: str, value: Any, usual: Any) -> None:
    """Remember what the URL says where it could not be read, so that the usual value is shown."""
    text = st.query_params.get(name)
    if text and _same(value, usual) and text not in (str(usual), _written(usual)):
        if isinstance(usual, int | float) and not isinstance(usual, bool):
            try:
                if float(text) == usual:  # 1.0 and 1
                    return
            except ValueError:
                pass
        st.session_state.setdefault(_UNREAD, {})[name] = (text, usual)


def unread() -> list[str]:
    """Sentences about what the URL says and this page could not read, for as long as it says so."""
    noted = st.session_state.get(_UNREAD, {}).items()
    return [
        f"The address says '{text[:CUT]}' for {name}, which is none here: {_instead(usual)}."
        for name, (text, usual) in noted
        if st.query_params.get(name) == text
    ]


def _instead(usual: Any) -> str:
    shown = "" if usual is None else _written(usual)
    return f"'{shown[:CUT]}' is shown" if shown else "it is left out"


def knows(names: Iterable[str], all: bool = False) -> None:
    """This page has parameters of these names, though it may show no widget of them now.

    Args:
        all: it has no others, beside those of its widgets.
    """
    st.session_state.setdefault(_KNOWN, set()).update(names)
    st.session_state[_ALL] = all


def knows_all() -> bool:
    """Whether the page has said what all of its parameters are."""
    return bool(st.session_state.get(_ALL))


def left() -> list[str]:
    """Parameters of the URL that nothing on this page has taken."""
    taken = {*st.session_state.get(_BOUND, {}), *st.session_state.get(_KNOWN, set())}
    return [name for name in st.query_params if name not in taken]


def here() -> str:
    """The address of the page that is shown."""
    return str(st.session_state.get(_PAGE, ""))


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def go(without: Iterable[str] = (), **params: str) -> NoReturn:
    """Show the same page anew, at these parameters beside the URL's others.

    Args:
        without: parameters to leave out.
    """
    for name in without:
        st.query_params.pop(name, None)
    st.query_params.update(params)
    st.session_state[_LEFT] = st.session_state[_SEEN] = None
    st.rerun()
