"""The rules by which neurons are chosen (scores.py computes them)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ..errors import UserError

Rule = Literal["half", "gate"]
"""How a gated product is frozen (frozen.py)."""
PREDICTING = ("half", "gate", "gradient", "integrated")
"""Those that say by how much the target changes."""
RULES = (*PREDICTING, "difference", "random")


def check_rules(rules: Sequence[str]) -> None:
    """Raise UserError for a rule that there is not, or none."""
    if not rules or (unknown := [rule for rule in rules if rule not in RULES]):
        named = f"no rule '{unknown[0]}'" if rules else "no rule is given"
        raise UserError(f"{named}: choose among {', '.join(RULES)}")
