"""Text that a page shows as it is, where markdown is read and where it is not."""

from __future__ import annotations

import re

from interp.plain_text import printable


def plain(text: object) -> str:
    """Text that Streamlit's markdown shows as it is: no hidden links, pictures or formulas, which a
    browser would fetch or draw. Whatever a page shows of a run, a model or a file goes through here
    where markdown is read: in captions and messages, metrics, tabs, and every widget's label."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|$<>~:&])", r"\\\1", printable(str(text)))


def listed(option: object) -> str:
    """An option of a selectbox, multiselect or select_slider: there Streamlit reads no markdown,
    and escapes would show."""
    return printable(str(option))
