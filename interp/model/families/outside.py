"""Families of other packages: entry points of the group `interp.families`, name -> Family.

The entry point's name is the `model_type` of config.json. Each is read once, when the table is
imported. One that does not fit is left out, and a line says why; the table's own names are taken.
"""

from __future__ import annotations

from typing import Any

from ...plugins import outside
from .family import Family

GROUP = "interp.families"


def outside_families(own: dict[str, Family]) -> dict[str, Family]:
    """Those of installed packages that are not among the table's own."""
    found: dict[str, Family] = {}

    def unfit(name: str, entry: Any) -> str:
        return _unfit(name, entry, own | found)

    for name, entry in outside(GROUP, "family", unfit):
        found[name] = entry
    return found


def _unfit(name: str, entry: Any, taken: dict[str, Family]) -> str:
    """Why an outside entry cannot be taken in; "" if it can."""
    if not isinstance(entry, Family):
        return "it is no interp.model.families.Family"
    if name in taken:
        return "the name is taken"
    values = entry.defaults.keys() | entry.fixed.keys()
    needed = (entry.eps, entry.activation, "tie_word_embeddings")
    absent = [field for field in needed if field not in values]
    return f"its defaults lack '{absent[0]}'" if absent else ""
