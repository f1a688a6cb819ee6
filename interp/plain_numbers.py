"""Numbers as text."""

from __future__ import annotations

import re

_SIZES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def exact(value: float) -> str:
    """The shortest text that reads back as the very same number, whole ones without their ".0":
    what a command, an address or a notebook call holds."""
    short = f"{value:g}"
    return short if float(short) == value else repr(float(value))


def bytes_said(text: str) -> int | None:
    """The bytes that a size means, as in 24G, 24 g or 1.5GiB; None for what is none."""
    size = re.fullmatch(r"(\d{1,30}(?:\.\d+)?) ?([KMGT]?)(?:I?B)?", text.strip().upper())
    return int(float(size[1]) * _SIZES[size[2]]) if size else None


def size_said(size: int) -> str:
    """Bytes as text: 1.5 GiB, and less than one as 300 MiB."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
