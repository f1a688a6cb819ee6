"""The one exception that is the user's to fix, and how its line is shown."""

import re

from .plain_text import printable

LONGEST_WORD, LONGEST_LINE = 300, 1500
"""In characters: what is longer is cut in its middle."""
LONGEST_REASON = 200
"""Of what a library says."""


class UserError(Exception):
    """A mistake or a condition the user can mend: one line that says what is wrong and the fix.

    The command line prints it on standard error and exits with code 2; the app shows it in place.
    """


def readable(text: str) -> str:
    """A message as one line: it may echo whatever was typed or stands in a file."""
    line = printable(re.sub(r"[\t-\r]+", " ", text))
    line = re.sub(
        rf"\S{{{LONGEST_WORD + 1},}}", lambda word: _cut(word[0], LONGEST_WORD // 2), line
    )
    return line if len(line) <= LONGEST_LINE else _cut(line, LONGEST_LINE)


def reason(error: BaseException) -> str:
    """What a library says is wrong: its first sentence, without the advice behind it."""
    sentence = re.split(r"\. |\.$", " ".join(str(error).split()), maxsplit=1)[0]
    shown = sentence or type(error).__name__
    return shown if len(shown) <= LONGEST_REASON else f"{shown[:LONGEST_REASON]} …"


def _cut(text: str, keep: int) -> str:
    """The beginning and the end of a text, `keep` characters of it."""
    end = keep // 3
    return f"{text[: keep - end]} … ({len(text)} characters) … {text[-end:]}"
