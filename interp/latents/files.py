"""Cards written to a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from ..runs.disk import unwritable
from .card import Card
from .html import page


def write_html(cards: Sequence[Card], path: Path) -> None:
    """One file that stands alone.

    Raises:
        UserError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(cards), encoding="utf-8")
    except OSError as error:
        raise UserError(unwritable(path, error)) from error
