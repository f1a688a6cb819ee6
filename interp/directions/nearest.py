"""The neurons of a model that are nearest to a direction: by the cosine in the residual stream,
over all layers and kinds, one matrix in memory at a time.

    cosine = cos(in_stream(direction), row)

A row of `down` is what the neuron adds to the stream; a row of `up` or `gate` is what it reads of
it, the norm's gain included (`spaces`). The naive code is one product with each whole matrix in
float64.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import pandas as pd
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import UserError
from ..model.neuron import NeuronName
from ..model.weights import Weights
from ..progress import progress
from .compare import in_stream
from .directions import Directions
from .spaces import before_norm


def neuron_rows(
    weights: Weights, layer: int, kinds: Collection[str] = ()
) -> Iterator[tuple[NeuronName, Float[Tensor, "n d_model"]]]:
    """Every matrix of neurons of a layer as it lies in the stream, and its first neuron's name."""
    for kind in kinds or weights.spec.kinds:
        for bank in weights.banks(layer):
            rows = weights.in_stream(kind, layer, bank.expert)  # type: ignore[arg-type]
            if kind != "down":
                rows = before_norm(rows, weights, layer)
            yield NeuronName(layer, kind, 0, bank.expert), rows


def nearest_neurons(
    directions: Directions, weights: Weights, limit: int = 10, kinds: Collection[str] = ()
) -> pd.DataFrame:
    """The neurons with the largest |cos| of each direction: `name` (the direction's), `neuron`,
    `layer`, `kind` and `cosine`, the most alike first. A neuron is not among those that are near
    its own vector.

    Args:
        kinds: only these of up, gate and down.

    Raises:
        UserError: directions at a site whose vectors are not of the stream, of another width, or a
            kind that the model lacks.
    """
    if missing := [kind for kind in kinds if kind not in weights.spec.kinds]:
        raise UserError(
            f"this model has no '{missing[0]}' neurons, only {', '.join(weights.spec.kinds)}"
        )
    width, vectors = weights.spec.d_model, in_stream(directions, weights)
    if vectors.shape[1] != width:
        raise UserError(f"these directions have {vectors.shape[1]} numbers, the stream has {width}")
    directions.note_model(weights)
    unit = normalize(vectors, eps=1e-300).float()
    found: list[list[tuple[float, NeuronName]]] = [[] for _ in range(len(directions))]
    with progress("nearest neurons", weights.spec.n_layers, "layers") as advance:
        for layer in range(weights.spec.n_layers):
            for first, rows in neuron_rows(weights, layer, kinds):
                cosines = unit @ normalize(rows.float(), eps=1e-30).T
                _keep_best(found, cosines, first, limit + 1)
            advance(1, f"layer {layer}")
    made: list[dict[str, Any]] = []
    for name, best in zip(directions.names, found, strict=True):
        others = [pair for pair in best if not _itself(name, *pair)]
        for cosine, neuron in others[:limit]:
            about = {"neuron": str(neuron), "layer": neuron.layer, "kind": neuron.kind}
            made.append({"name": name, **about, "cosine": cosine})
    return pd.DataFrame(made, columns=["name", "neuron", "layer", "kind", "cosine"])


def _itself(name: str, cosine: float, neuron: NeuronName) -> bool:
    """Whether a direction is this neuron's own vector: its name, and as much alike as rounding
    leaves."""
    return name == str(neuron) and cosine > 1 - 1e-5


def _keep_best(
    found: list[list[tuple[float, NeuronName]]],
    cosines: Float[Tensor, "n neurons"],
    first: NeuronName,
    limit: int,
) -> None:
    """Take a matrix's best into the best so far."""
    best = cosines.abs().topk(min(limit, cosines.shape[1]), dim=1).indices
    for row, numbers in enumerate(best.tolist()):
        values = cosines[row, best[row]].tolist()
        new = [(c, first._replace(neuron=i)) for c, i in zip(values, numbers, strict=True)]
        found[row] = sorted([*found[row], *new], key=lambda pair: -abs(pair[0]))[:limit]


def neurons_there(weights: Weights, kinds: Collection[str] = ()) -> int:
    """How many vectors `nearest_neurons` compares with."""
    return sum(
        bank.size
        for layer in range(weights.spec.n_layers)
        for _ in kinds or weights.spec.kinds
        for bank in weights.banks(layer)
    )
