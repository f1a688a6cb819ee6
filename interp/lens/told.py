"""A lens in words, for whoever reads what was read through it; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..runs.store import Run

WORDS = {
    "raw": "Read as they are, without the final norm.",
    "final": "Read through the logit lens: with the final norm, and no map before it.",
}


def told(about: Mapping[str, str | int]) -> str:
    """A sentence of what `Lens.about` says."""
    return WORDS.get(str(about["name"])) or (
        f"Read through the {about['name']} lens, fitted on {about.get('prompts', '?')} passages "
        f"({about.get('file', '?')})."
    )


def told_of(run: Run) -> str:
    """A sentence of the lens that a run of lens.show was read through."""
    return told({"name": run.config["lens"], **run.manifest.get("lens", {})})
