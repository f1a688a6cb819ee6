"""Text that a page shows as it is, where markdown is read and where it is not."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from interp.plain_text import printable


def plain(text: object) -> str:
    """Text that Streamlit's markdown shows as it is: no hidden links, pictures or formulas, which a
    browser would fetch or draw. Whatever a page shows of a run, a model or a file goes through here
    where markdown is read: in captions and messages, metrics, tabs, and every widget's label."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|$<>~:&])", r"\\\1", printable(str(text)))


def listed(option: object) -> str:
    """An option of a selectbox, multiselect or select_slider: there Streamlit reads no markdown,
    and escapes would show.

    The browser sends these words back, so whatever a list calls its options tells each from the
    others, today and when there are more of them.
    """
    return printable(str(option))


def placed(option: object) -> str:
    """A folder, a model or a run's part in a list: its name first, then all of it."""
    whole = str(option)
    name = Path(whole).name
    return listed(whole if name == whole else f"{name} · {whole}")


def called(names: Mapping[Any, str], none: str = "") -> Callable[[object], str]:
    """What a list calls options by these names, of which no two are the same; any other by itself.

    Args:
        none: the name of the option "".
    """
    return lambda option: listed(names.get(option, option)) or none


def first_of(shown: int, there: int, what: str = "directions") -> str:
    """What is said where a list is cut; "" where it is whole."""
    return f"Only the first {shown:,} of {there:,} {what}." if shown < there else ""


def numbered(names: Sequence[str]) -> Callable[[object], str]:
    """What a list calls options that are numbers of these names, of which two may be the same."""
    return called({at: f"{at}: {name}" for at, name in enumerate(names)})
