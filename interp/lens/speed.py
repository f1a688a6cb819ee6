"""What a lens costs beside decoding vectors as they are."""

from __future__ import annotations

from itertools import cycle

from ..model.readout import open_readout
from ..model.site import Site
from ..model.weights import open_weights
from ..timing import Pair
from .files import open_lens

K = 16


def pairs(model: str) -> list[Pair]:
    """For `interp bench all`: write vectors through the Jacobian lens, another layer each turn.

    Raises:
        UserError: the model has no Jacobian lens.
    """
    weights = open_weights(model)
    lens, readout = open_lens("jacobian", weights), open_readout(weights)
    layers = range(0, weights.spec.n_layers - 1, 4)
    rows = {layer: weights.in_stream("down", layer) for layer in layers}
    carried, bare = cycle(layers), cycle(layers)

    def through() -> None:
        layer = next(carried)
        readout.decode(lens.vectors(rows[layer], Site("mlp_out", layer)), K)

    def as_they_are() -> None:
        readout.decode(rows[next(bare)].float(), K)

    what = "decoding write vectors through the Jacobian lens"
    return [Pair(what, "decoding them as they are", "lens", through, as_they_are)]
