"""Directions by a text: a folder that an analysis left, neurons (29.down.808), or the latents of an
SAE, all (sae:SOURCE) or some (sae:SOURCE:12,15), or tokens at a layer, through a lens
(lens:jacobian:12: are, is)."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd
import torch

from ..errors import UserError
from ..lens.files import open_lens
from ..lens.lens import Lens
from ..model.catalog import DEFAULT_MODEL
from ..model.neuron import NeuronName, check_neuron, parse_neuron
from ..model.site import Site
from ..model.vocabulary import token_strings
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


def latent_directions(
    source: str, latents: Sequence[int] | None = None, model: str | None = None, site: str = ""
) -> Directions:
    """Latents of one SAE or transcoder: the rows they write, where they write them, each read as
    the latent's activation where it is read. The vectors of all of them are the decoder itself.

    Args:
        source: as `saes.open_sae` takes it.
        latents: which; by default all.
        model: whose activations it reads; by default what it says itself.
        site: the one it reads, for an SAE that does not say it.

    Raises:
        UserError: as `open_sae`; a latent that it lacks; an SAE that does not name its site or, if
            none is given, its model; one of another model or of an error.
    """
    reading, sae = Encoder.of(source, site)
    chosen = range(sae.d_sae) if latents is None else latents
    missing = [] if latents is None else [i for i in chosen if not 0 <= i < sae.d_sae]
    if missing:
        raise UserError(f"{source} has no latent {missing[0]}: it has 0..{sae.d_sae - 1}")
    if not (sae.site and sae.out_site):
        what = sae.inner.cfg.metadata.hook_name_out if sae.site else sae.hook
        said = f"{what} is no site here" if what else "it does not say which site it reads"
        raise UserError(f"{source}: {said}, so its latents have none: save it with another")
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
    weights = open_weights(named)
    for verb, at, own in (("reads", sae.site, sae.d_in), ("writes", sae.out_site, sae.d_out)):
        if (width := site_width(weights, Site.parse(at))) != own:
            raise UserError(f"{source} {verb} {own} numbers, {at} of {named} has {width}")
    made = Provenance.of("sae", weights, sae=source)
    index = pd.DataFrame({"name": [f"latent {i}" for i in chosen], "latent": list(chosen)})
    vectors = sae.W_dec if latents is None else sae.W_dec[list(latents)]
    return Directions(Site.parse(sae.out_site), vectors, index, made, reading)


def token_directions(weights: Weights, lens: Lens, layer: int, tokens: Sequence[str]) -> Directions:
    """Directions of some tokens at `layer`.resid_post: what the lens reads for each (`Lens.rows`).

    Args:
        tokens: their exact texts, with the blank before them: " are".

    Raises:
        UserError: a layer or a token that the model or the lens lacks.
    """
    if not 0 <= layer < weights.spec.n_layers:
        raise UserError(f"no layer {layer}: this model has layers 0..{weights.spec.n_layers - 1}")
    said = token_strings(weights.folder, weights.spec.d_vocab)
    numbers = {text: number for number, text in reversed(list(enumerate(said)))}
    for token in tokens:
        if token not in numbers:
            other = next((t for t in (f" {token}", token.strip()) if t in numbers), "")
            raise UserError(
                f"no token of {weights} is exactly '{token}'" + (f": '{other}' is" if other else "")
            )
    ids = [numbers[token] for token in tokens]
    index = pd.DataFrame({"name": list(tokens), "token": ids})
    made = Provenance.of("lens", weights, lens=lens.about)
    return Directions(Site("resid_post", layer), lens.rows(ids, layer), index, made)


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
        return latent_directions(*_latents(source), model)
    if source.startswith("lens:"):
        lens, layer, tokens = _tokens(source)
        weights = open_weights(model or DEFAULT_MODEL)
        return token_directions(weights, open_lens(lens, weights), layer, tokens)
    try:
        neurons = [parse_neuron(name) for name in source.split(",")]
    except UserError as error:
        raise UserError(
            f"'{source}' is no folder of directions, no run's key, and names no neurons "
            "(29.down.808), latents (sae:SOURCE, sae:SOURCE:12) or tokens at a layer "
            "(lens:jacobian:12: are): `interp directions list` shows the stored sets"
        ) from error
    return neuron_directions(open_weights(model or DEFAULT_MODEL), neurons)


def _latents(text: str) -> tuple[str, list[int] | None]:
    """('FOLDER', [12, 15]) of "sae:FOLDER:12,15"; without numbers None, which means all."""
    source = text.removeprefix("sae:")
    sae, _, numbers = source.rpartition(":")
    if sae and all(number.strip().isdecimal() for number in numbers.split(",")):
        return sae, list(map(int, numbers.split(",")))
    if not source.strip(":"):
        raise UserError(f"'{text}' names no SAE: write sae:SOURCE, or sae:SOURCE:12,15 of latents")
    return source, None


def _tokens(text: str) -> tuple[str, int, list[str]]:
    """("jacobian", 12, [" are", " is"]) of "lens:jacobian:12: are, is"."""
    if not (parts := re.fullmatch(r"lens:(.+?):(\d{1,4}):(.+)", text, re.DOTALL)):
        raise UserError(
            f"'{text}' names no tokens at a layer: write lens:LENS:LAYER:TOKENS, as in "
            "'lens:jacobian:12: are, is'"
        )
    return parts[1], int(parts[2]), parts[3].split(",")
