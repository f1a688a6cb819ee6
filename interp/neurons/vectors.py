"""Atlas neurons as Directions and as sites: what a neuron reads, writes, and where to hold it."""

from __future__ import annotations

import pandas as pd

from ..directions import Directions
from ..errors import UserError
from ..site import Site
from ..weights import Weights
from .search import NeuronName

CLAMP_SITES = {"up": "mlp_up", "gate": "mlp_gate", "down": "mlp_post"}
"""Where the activation belonging to each kind of vector is: both projections' outputs, before
activation and product, and the down projection's input."""


def clamp_site(neuron: NeuronName) -> Site:
    """The site at which a neuron's activation can be held."""
    return Site(CLAMP_SITES[neuron.kind], neuron.layer)


def neuron_directions(weights: Weights, neurons: list[NeuronName]) -> Directions:
    """Weight vectors of some neurons of one layer and kind.

    Read vectors (up, gate) are directions at `mlp_in`, where the MLP reads; write vectors (down)
    at `mlp_out`.
    """
    if not neurons or len({(n.layer, n.kind) for n in neurons}) != 1:
        raise UserError("directions need neurons of one layer and kind: they share one site")
    layer, kind, _ = neurons[0]
    rows = [n.neuron for n in neurons]
    matrix = weights.neurons(kind, layer)  # type: ignore[arg-type]
    if max(rows) >= len(matrix):
        raise UserError(f"no neuron {max(rows)} in layer {layer}: it has {len(matrix)}")
    site = Site("mlp_out" if kind == "down" else "mlp_in", layer)
    index = pd.DataFrame({"name": [str(n) for n in neurons]})
    return Directions(site, matrix[rows], index, {"model": str(weights.folder), "from": "neurons"})
