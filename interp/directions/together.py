"""Kept directions as one set: those of one model, at one site, that are read in one way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import pandas as pd
import torch

from ..errors import UserError
from ..runs.store import Store
from .collections import KeptEntry
from .directions import Directions
from .encoder import Encoder
from .provenance import Provenance
from .sets import sae_place


def together(source: str, kept: Sequence[KeptEntry], store: Store) -> Directions:
    """Kept directions as one set, each named by its title.

    Raises:
        UserError: they are of several models, at several sites, or read in several ways.
    """
    every = [_in_store(Directions.load(entry.folder), store) for entry in kept]
    first, fix = every[0], f"name one, as in {kept[0].source}"
    made = [each.provenance for each in every]
    of = {
        (each.fingerprint, each.model): (each, entry)
        for each, entry in zip(made, kept, strict=True)
    }
    # each with each: of three the first may not say whose it is
    if any(not a.same_model(b) for (a, _), (b, _) in combinations(of.values(), 2)):
        models = [f"{each.model or 'unnamed'} ({entry.about.id})" for each, entry in of.values()]
        shown = ", ".join(models[:4])
        raise UserError(f"{source} holds directions of several models, {shown}: {fix}")
    ways = {
        (each.site, each.reading, each.vectors.shape[1]): entry.about.id
        for each, entry in zip(every, kept, strict=True)
    }
    if len(ways) > 1:
        shown = ", ".join(f"{site} ({id})" for (site, *_), id in list(ways.items())[:4])
        raise UserError(
            f"{source} holds directions that are read in {len(ways)} ways, at {shown}: {fix}"
        )
    needed = {"name", "constant", first.reading.COLUMN} - {""}
    tables = []
    for each, entry in zip(every, kept, strict=True):
        table = each.index[[name for name in each.index if name in needed]].copy()
        table["name"] = entry.about.title
        tables.append(table)
    index = pd.concat(tables, ignore_index=True)
    if "constant" in index:
        index["constant"] = index["constant"].fillna(0.0)
    vectors = torch.cat([each.vectors.float() for each in every])
    return replace(first, vectors=vectors, index=index, provenance=Provenance.shared(made))


def _in_store(directions: Directions, store: Store) -> Directions:
    """The same, with an SAE of a run where this store has it; one that it lacks keeps its text, and
    is missed by whoever asks for scores."""
    reading = directions.reading
    if not isinstance(reading, Encoder):
        return directions
    try:
        place = sae_place(reading.sae, store)
    except UserError:
        return directions
    return replace(directions, reading=replace(reading, sae=place))
