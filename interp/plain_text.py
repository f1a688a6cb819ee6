"""Text that anyone may have written, made safe to print."""

from __future__ import annotations

import re

_UNSEEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f"  # control characters: a terminal obeys them
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # turn the direction of what follows
    r"\u2028\u2029\ud800-\udfff"  # line separators; halves of characters cannot be written
    r"\xad\u180e\u200b\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
"""The last line is of characters without a picture, that hide in a text. The joiners (U+200C and
U+200D) are not among them: Persian words and many emoji are written with them."""


def printable(text: str) -> str:
    """A text with the characters that steer a terminal, or hide, as escapes: `\\x1b`, `\\u202e`."""
    return _UNSEEN.sub(lambda found: _escape(found[0]), text)


def _escape(sign: str) -> str:
    return sign.encode("unicode_escape").decode("ascii")
