"""Directions by a text: a folder that an analysis left, or neurons such as 29.down.808."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch

from ..errors import UserError
from ..model.catalog import DEFAULT_MODEL
from ..model.neuron import NeuronName, check_neuron, parse_neuron
from ..model.site import Site
from ..model.weights import Weights, open_weights
from .directions import Directions


def neuron_directions(weights: Weights, neurons: list[NeuronName]) -> Directions:
    """Weight vectors of some neurons of one layer and kind.

    Read vectors (up, gate) are directions at `mlp_in`, where the MLP reads; write vectors (down) at
    `mlp_out`, and are what is added to the stream (`Weights.in_stream`)."""
    if not neurons or len({(n.layer, n.kind) for n in neurons}) != 1:
        raise UserError("directions need neurons of one layer and kind: they share one site")
    layer, kind = neurons[0].layer, neurons[0].kind
    for neuron in neurons:
        check_neuron(neuron, weights)
    matrices = {
        expert: weights.in_stream(kind, layer, expert)  # type: ignore[arg-type]
        for expert in dict.fromkeys(neuron.expert for neuron in neurons)
    }
    vectors = torch.stack([matrices[neuron.expert][neuron.neuron] for neuron in neurons])
    site = Site("mlp_out" if kind == "down" else "mlp_in", layer)
    index = pd.DataFrame({"name": [str(n) for n in neurons]})
    return Directions(site, vectors, index, {"model": str(weights.folder), "from": "neurons"})


def open_directions(source: str, model: str | None) -> Directions:
    """Saved directions, or the neurons that a text names.

    Raises:
        UserError: the text names neither, or neurons that the model lacks.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        inner = folder / "directions"  # of a run that has one set
        run = (folder / "run.json").exists() and (inner / "directions.json").exists()
        return Directions.load(inner if run else folder)
    try:
        neurons = [parse_neuron(name) for name in source.split(",")]
    except UserError as error:
        raise UserError(
            f"'{source}' is no folder of directions and names no neurons (29.down.808): "
            "`interp directions list` shows the stored sets"
        ) from error
    return neuron_directions(open_weights(model or DEFAULT_MODEL), neurons)
