"""A neuron of an MLP by its name, and the site of its activation."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from ..errors import UserError
from .site import Site

if TYPE_CHECKING:
    from .weights import Weights

CLAMP_SITES = {"up": "mlp_up", "gate": "mlp_gate", "down": "mlp_post"}
"""Where the activation belonging to each kind of vector is: both projections' outputs, before
activation and product, and the down projection's input."""


class NeuronName(NamedTuple):
    """`29.gate.808`: a layer, a kind of vector, an index; in a layer of experts `12.e5.gate.808`,
    of the expert that every token passes `12.shared.gate.808`."""

    layer: int
    kind: str
    neuron: int
    expert: str = ""

    def __str__(self) -> str:
        parts = (self.layer, self.expert, self.kind, self.neuron)
        return ".".join(str(part) for part in parts if part != "")


def parse_neuron(text: str) -> NeuronName:
    form = r"\s*(\d{1,9})\.(?:(e\d{1,6}|shared)\.)?(up|gate|down)\.(\d{1,9})\s*"
    if not (match := re.fullmatch(form, text)):
        raise UserError(
            f"'{text}' names no neuron: write layer.kind.index, such as 29.gate.808, or in a layer "
            "of experts 12.e5.gate.808"
        )
    layer, expert, kind, neuron = match.groups()
    return NeuronName(int(layer), kind, int(neuron), expert or "")


def check_neuron(neuron: NeuronName, weights: Weights) -> None:
    """Raise UserError for a neuron that a model does not have."""
    size = weights.bank(neuron.kind, neuron.layer, neuron.expert).size  # type: ignore[arg-type]
    if neuron.neuron >= size:
        raise UserError(
            f"no {neuron} in this model: layers 0..{weights.spec.n_layers - 1}, neurons "
            f"0..{size - 1}"
        )


def clamp_site(neuron: NeuronName) -> Site:
    """The site at which a neuron's activation can be held.

    Raises:
        UserError: a neuron of an expert, which sees only the tokens routed to it.
    """
    if neuron.expert:
        raise UserError(
            f"the activation of {neuron} is no site: an expert sees only the tokens that are "
            "routed to it. Take its vector as a direction, or a site of the whole layer"
        )
    return Site(CLAMP_SITES[neuron.kind], neuron.layer)
