"""Directions through the LM head: `Directions.decode`."""

from __future__ import annotations

import pandas as pd

from ..lens.files import open_lens
from ..lens.lens import Lens
from ..model.readout import open_readout
from ..model.vocabulary import token_strings
from ..model.weights import Weights
from .directions import Directions
from .spaces import check_in_stream


def decoded(directions: Directions, weights: Weights, k: int, lens: str | Lens) -> pd.DataFrame:
    """The index with the top and bottom tokens of each (see `Directions.decode`)."""
    check_in_stream(directions.site)
    directions.fits(weights.spec.d_model, "the residual stream")
    directions.note_model(weights)
    opened = open_lens(lens, weights) if isinstance(lens, str) else lens
    vectors = opened.vectors(directions.vectors, directions.site)
    tokens = token_strings(weights.folder, weights.spec.d_vocab)
    found = open_readout(weights).decode(vectors, k)
    table = directions.index.reset_index(drop=True).copy()
    for name, side in (("top", found.top), ("bottom", found.bottom)):
        table[name] = [[tokens[i] for i in ids] for ids in side.ids.tolist()]
        table[f"{name}_logits"] = found.logits(side).tolist()
        table[f"{name}_z"] = found.z(side).abs().tolist()
    return table
