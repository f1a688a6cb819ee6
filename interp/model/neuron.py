"""A neuron of an MLP by its name, and the site of its activation."""

from __future__ import annotations

import re
from typing import NamedTuple

from ..errors import UserError
from .site import Site

CLAMP_SITES = {"up": "mlp_up", "gate": "mlp_gate", "down": "mlp_post"}
"""Where the activation belonging to each kind of vector is: both projections' outputs, before
activation and product, and the down projection's input."""


class NeuronName(NamedTuple):
    """`29.gate.808`: a layer, a kind of vector, an index."""

    layer: int
    kind: str
    neuron: int

    def __str__(self) -> str:
        return f"{self.layer}.{self.kind}.{self.neuron}"


def parse_neuron(text: str) -> NeuronName:
    match = re.fullmatch(r"\s*(\d{1,9})\.(up|gate|down)\.(\d{1,9})\s*", text)
    if not match:
        raise UserError(f"'{text}' names no neuron: write layer.kind.index, such as 29.gate.808")
    return NeuronName(int(match[1]), match[2], int(match[3]))


def clamp_site(neuron: NeuronName) -> Site:
    """The site at which a neuron's activation can be held."""
    return Site(CLAMP_SITES[neuron.kind], neuron.layer)
