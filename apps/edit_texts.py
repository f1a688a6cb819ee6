"""Edits of the steering page as texts: what its address holds, with a way back.

The list is one text, `hold 29.down.808=40;off add kept:mine:first=8`. An edit that is off stands
behind "off "; one without a value gets one that does something as soon as the model runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote

from interp.directions.acts import VERBS, Act, parse_act
from interp.errors import UserError
from interp.model.neuron import parse_neuron

OFF = "off "
"""Before an edit that is switched off."""


@dataclass(frozen=True)
class Row:
    """An edit of the list."""

    act: Act
    on: bool = True

    @property
    def unset(self) -> bool:
        """Whether its value is still to be chosen."""
        return VERBS[self.act.verb] and math.isnan(self.act.value)

    @property
    def name(self) -> str:
        """Which of the list it is: an act on one thing stands there once."""
        return f"{self.act.verb} {self.act.target}"

    @property
    def text(self) -> str:
        return OFF * (not self.on) + (self.name if self.unset else str(self.act))


def parsed(text: str) -> Row:
    """An edit as the address has it, perhaps off, perhaps without a value.

    Raises:
        UserError: as `parse_act`.
    """
    own = text.strip()
    on = not own.startswith(OFF)
    own = own.removeprefix(OFF)
    try:
        return Row(parse_act(own), on)
    except UserError:
        verb, _, target = own.partition(" ")
        if not VERBS.get(verb) or "=" in target:
            raise
        return Row(replace(parse_act(f"{own}=0"), value=math.nan), on)


def joined(texts: list[str]) -> str:
    """The list as one text."""
    return ";".join(quote(text, safe=" /:=.,+-~'()[]") for text in texts)


def split(text: str) -> list[str]:
    return [unquote(part) for part in text.split(";") if part.strip()]


def from_link(source: str, act: str) -> str:
    """The list that a link to one direction begins with: a neuron is held, a latent steered."""
    if not source:
        return ""
    away = act == "ablate"
    try:
        parse_neuron(source)
        return joined([f"hold {source}=0" if away else f"hold {source}"])
    except UserError:
        latent = source.startswith("sae:") and source.rpartition(":")[2].isdecimal()
    if latent:
        return joined([f"{'ablate' if away else 'steer'}-latent {source}"])
    return joined([f"{'project-out' if away else 'add'} {source}"])
