"""A lens in words, for whoever reads what was read through it; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping

WORDS = {"raw": "as they are", "final": "with the final norm's gain"}


def told(about: Mapping[str, str | int]) -> str:
    """A sentence of what `Lens.about` says."""
    if about["name"] in WORDS:
        return f"Vectors are read {WORDS[str(about['name'])]}."
    return (
        f"Read through the {about['name']} lens, fitted on {about.get('prompts', '?')} passages "
        f"({about.get('file', '?')})."
    )
