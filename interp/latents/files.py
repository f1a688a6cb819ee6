"""Cards written to a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..runs.parts import write_file
from .card import Card
from .html import page


def write_html(cards: Sequence[Card], path: Path) -> None:
    """One file that stands alone.

    Raises:
        UserError: it cannot be written.
    """
    write_file(path, page(cards))
