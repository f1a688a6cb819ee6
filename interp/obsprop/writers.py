"""Which neurons write a feature: what they add to the stream compared with what reads it.

A neuron of an earlier layer adds its write vector (`Weights.in_stream`) times its activation, so
its share in the feature per unit of activation is the dot product of the two; the cosine leaves
lengths out. Naive equivalent: `in_stream("down", layer) @ vector` layer by layer, sorted.
"""

from __future__ import annotations

import pandas as pd
from torch.nn.functional import normalize

from ..directions import Directions
from ..progress import progress
from .model_weights import StackedWeights


def writers(weights: StackedWeights, directions: Directions, keep: int = 20) -> pd.DataFrame:
    """Neurons before the site of a feature of the stream (the first direction), by the size of
    their cosine with it: name, cosine, dot.

    `dot` is what one unit of activation adds to the feature's reading. Where a norm follows the MLP
    (Gemma 2 and 3), it is that before the norm's scale, which depends on the token.
    """
    vector, layers = directions.vectors[0].double(), directions.site.layer or 0
    tables = []
    with progress("writers", layers, "layers") as advance:
        for layer in range(layers):
            added = weights.stored.in_stream("down", layer).double()
            cosine = normalize(added, eps=1e-300) @ normalize(vector, dim=0, eps=1e-300)
            names = [f"{layer}.down.{i}" for i in range(len(added))]
            layer_table = {"name": names, "cosine": cosine, "dot": added @ vector}
            tables.append(pd.DataFrame(layer_table))
            advance(1)
    every = pd.concat(tables)
    return every.sort_values("cosine", key=abs, ascending=False, ignore_index=True).head(keep)
