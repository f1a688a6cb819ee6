"""Directions by a text.

29.down.808,29.down.1499      neurons of one layer and kind
sae:SOURCE, sae:SOURCE:12,15  the latents of an SAE, all or some
lens:jacobian:12: are, is     tokens at a layer, through a lens
run:KEY[/SET][:ROWS]          a set in a run of the store (`sets`)
kept:NAME[:ENTRY]             what a collection of the store keeps (`collections`)
FOLDER[:ROWS]                 a folder that `Directions.save` wrote, or a run's
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from ..errors import UserError
from ..lens.files import open_lens
from ..lens.lens import Lens
from ..model.allowed import check_place_allowed
from ..model.catalog import DEFAULT_MODEL
from ..model.neuron import NeuronName, check_neuron, parse_neuron
from ..model.site import Site
from ..model.tensor_files import remembered_sha256
from ..model.vocabulary import token_strings
from ..model.weights import Weights, open_weights
from ..plain_path import found, lacks
from ..runs.store import Store
from ..saes.open import saes_fingerprint
from .collections import KEPT, open_kept
from .directions import Directions
from .encoder import Encoder
from .provenance import Provenance
from .reading import neuron_reading
from .sets import FILES, chosen_rows, run_of, run_set, sae_place
from .together import together
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


def open_directions(
    source: str, model: str | None = None, store: Store | None = None
) -> Directions:
    """What a text names (see this module's for its forms).

    Args:
        model: whose neurons, latents or tokens; by default the SAE's own, else the usual one.
        store: where `run:` and `kept:` are looked up; by default the usual store.

    Raises:
        UserError: the text names none, or ones that the model, the SAE, the run or the collection
            lacks.
    """
    store = store or Store()
    if folder := folder_of(source, store):
        opened = Directions.load(folder.path)
        return opened.pick(chosen_rows(folder.rows, opened.names)) if folder.rows else opened
    if source.startswith(KEPT):
        return together(source, open_kept(source, store), store)
    if source.startswith("sae:"):
        sae, latents = latents_named(source)
        return latent_directions(sae_place(sae, store), latents, model)
    if source.startswith("lens:"):
        lens, layer, tokens = _tokens(source)
        weights = open_weights(model or DEFAULT_MODEL)
        return token_directions(weights, open_lens(lens, weights), layer, tokens)
    return neuron_directions(open_weights(model or DEFAULT_MODEL), _neurons(source))


def content(source: str, model: str | None = None, store: Store | None = None) -> str:
    """A print of what `open_directions` would open: another one where the files behind the text are
    others by now, so that what is remembered of the text is asked anew.

    Raises:
        UserError: as `open_directions`, as far as it is seen without opening them.
    """
    store = store or Store()
    if folder := folder_of(source, store):
        parts = [_print(folder.path), folder.rows]
    elif source.startswith(KEPT):
        kept = open_kept(source, store)
        parts = [text for entry in kept for text in (_print(entry.folder), entry.about.title)]
    elif source.startswith("sae:"):
        parts = [saes_fingerprint(sae_place(latents_named(source)[0], store)), source, model or ""]
    else:
        weights = open_weights(model or DEFAULT_MODEL)
        parts = [weights.fingerprint(), source]
        if source.startswith("lens:"):
            parts.append(open_lens(_tokens(source)[0], weights).identity)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


class Folder(NamedTuple):
    """A folder of directions, and which of them."""

    path: Path
    rows: str = ""


def folder_of(source: str, store: Store) -> Folder | None:
    """The folder that a text names; None if it names none."""
    if source.startswith("run:"):
        chosen = run_set(source, store)
        return Folder(chosen.folder, chosen.rows)
    path, rows = found(source), ""
    if path or source.startswith(("/", ".", "~")):
        check_place_allowed("directions", source)
    if not path and ":" in source:
        head, _, rows = source.rpartition(":")
        path = found(head) if rows else None
        path = path if path and path.is_dir() else None
    if not path and re.fullmatch("[0-9a-f]{4,}", source):
        path = run_of(source, store).path if len(source) <= 12 else None
    if not path or not path.is_dir():
        return None
    inner = path / "directions"  # of a run that has one set
    run = (path / "run.json").exists() and (inner / "directions.json").exists()
    return Folder(inner if run else path, rows)


def _print(folder: Path) -> str:
    """Of the files of a set."""
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise UserError(f"{folder} holds no directions ({lacks(folder, missing[0])})")
    return " ".join(remembered_sha256(folder / name) for name in FILES)


def _neurons(text: str) -> list[NeuronName]:
    try:
        return [parse_neuron(name) for name in text.split(",")]
    except UserError as error:
        raise UserError(
            f"'{text}' is no folder of directions, no run's key, and names no neurons "
            "(29.down.808), latents (sae:SOURCE, sae:SOURCE:12), tokens at a layer "
            "(lens:jacobian:12: are), set of a run (run:KEY/SET:3) or entry of a collection "
            "(kept:NAME:ENTRY): `interp directions list` shows the stored sets"
        ) from error


def latents_named(text: str) -> tuple[str, list[int] | None]:
    """('FOLDER', [12, 15]) of "sae:FOLDER:12,15"; without numbers None, which means all."""
    source = text.removeprefix("sae:")
    sae, _, numbers = source.rpartition(":")
    of_key = sae == "run"  # a key may be of digits alone
    if sae and not of_key and all(number.strip().isdecimal() for number in numbers.split(",")):
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
