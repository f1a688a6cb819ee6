"""Vectors of the residual stream through the LM head: `Directions.decode`."""

from __future__ import annotations

from typing import Any

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from ..lens.files import open_lens
from ..lens.lens import Lens
from ..model.readout import open_readout
from ..model.site import Site
from ..model.vocabulary import token_strings
from ..model.weights import Weights


def decoded(
    vectors: Float[Tensor, "n d_model"], site: Site, weights: Weights, k: int, lens: str | Lens
) -> pd.DataFrame:
    """Of each the top and bottom tokens, their logits and z (see `Directions.decode`)."""
    opened = open_lens(lens, weights) if isinstance(lens, str) else lens
    tokens = token_strings(weights.folder, weights.spec.d_vocab)
    found = open_readout(weights).decode(opened.vectors(vectors, site), k)
    columns: dict[str, list[Any]] = {}
    for name, side in (("top", found.top), ("bottom", found.bottom)):
        columns[name] = [[tokens[i] for i in ids] for ids in side.ids.tolist()]
        columns[f"{name}_logits"] = found.logits(side).tolist()
        columns[f"{name}_z"] = found.z(side).abs().tolist()
    return pd.DataFrame(columns)
