"""Directions by a text: a folder that an analysis left, neurons (29.down.808), or latents of an SAE
(sae:FOLDER:12,15)."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd
import torch

from ..errors import UserError
from ..model.catalog import DEFAULT_MODEL
from ..model.neuron import NeuronName, check_neuron, parse_neuron
from ..model.site import Site
from ..model.weights import Weights, open_weights
from ..plain_path import found
from ..runs.store import Store
from .directions import Directions
from .provenance import Provenance
from .reading import Encoder, neuron_reading
from .vectors import site_width


def neuron_directions(weights: Weights, neurons: Sequence[NeuronName]) -> Directions:
    """Weight vectors of some neurons of one layer and kind, each read as the neuron's activation.

    Read vectors (up, gate) are directions at `mlp_in`, where the MLP reads; write vectors (down) at
    `mlp_out`, and are what is added to the stream (`Weights.in_stream`).
    """
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
    reading, columns = neuron_reading(weights, neurons)
    index = pd.DataFrame({"name": [str(n) for n in neurons], **columns})
    return Directions(site, vectors, index, Provenance.of("neurons", weights), reading)


def latent_directions(source: str, latents: list[int], model: str | None = None) -> Directions:
    """Some latents of one SAE: the rows they write, each read as the latent's activation.

    Args:
        source: as `saes.open_sae` takes it.
        model: whose activations it reads; by default what it says itself.

    Raises:
        UserError: as `open_sae`; a latent that it lacks; an SAE that does not name its site or, if
            none is given, its model; one of another model or of an error.
    """
    reading = Encoder.of(source)
    sae = reading.opened
    missing = [i for i in latents if not 0 <= i < sae.d_sae]
    if missing:
        raise UserError(f"{source} has no latent {missing[0]}: it has 0..{sae.d_sae - 1}")
    if not sae.site:
        raise UserError(f"{source} does not say which site it reads: its latents have none")
    if sae.reads:
        raise UserError(f"{source} is an SAE of the {sae.reads}, not of activations: give another")
    if not (model or sae.model):
        raise UserError(f"{source} does not say which model it reads: give --model")
    named = model or sae.model
    if not sae.check_model(named, source, anyway=True):
        raise UserError(
            f"{source} is an SAE of {sae.model}, not of {model}: its latents are directions of "
            "that model only"
        )
    weights, site = open_weights(named), Site.parse(sae.site)
    if (width := site_width(weights, site)) != sae.d_in:
        raise UserError(f"{source} reads {sae.d_in} numbers, {site} of {named} has {width}")
    made = Provenance.of("sae", weights, sae=source)
    index = pd.DataFrame({"name": [f"latent {i}" for i in latents], "latent": latents})
    return Directions(site, sae.W_dec[latents].clone(), index, made, reading)


def open_directions(source: str, model: str | None = None) -> Directions:
    """Saved directions, or the neurons or latents that a text names. A run is named by its folder
    or by the first letters of its key.

    Raises:
        UserError: the text names none of them, or ones that the model or the SAE lacks.
    """
    folder = found(source)
    if not folder and re.fullmatch("[0-9a-f]{4,}", source):
        folder = Store().find(source).path
    if folder and folder.is_dir():
        inner = folder / "directions"  # of a run that has one set
        run = (folder / "run.json").exists() and (inner / "directions.json").exists()
        return Directions.load(inner if run else folder)
    if source.startswith("sae:"):
        sae, _, numbers = source.removeprefix("sae:").rpartition(":")
        if not sae or not all(n.strip().isdecimal() for n in numbers.split(",")):
            raise UserError(
                f"'{source}' names no latents: write sae:FOLDER:12,15 or sae:release:sae_id:12,15"
            )
        return latent_directions(sae, list(map(int, numbers.split(","))), model)
    try:
        neurons = [parse_neuron(name) for name in source.split(",")]
    except UserError as error:
        raise UserError(
            f"'{source}' is no folder of directions, no run's key, and names no neurons "
            "(29.down.808) or latents (sae:FOLDER:12): `interp directions list` shows the stored "
            "sets"
        ) from error
    return neuron_directions(open_weights(model or DEFAULT_MODEL), neurons)
