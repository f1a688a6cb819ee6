"""Numbers as text."""

from __future__ import annotations


def exact(value: float) -> str:
    """The shortest text that reads back as the very same number, whole ones without their ".0":
    what a command, an address or a notebook call holds."""
    short = f"{value:g}"
    return short if float(short) == value else repr(float(value))
