"""Which neurons write a feature: their down vectors compared with what reads the stream.

A neuron of an earlier layer adds its down vector times its activation to the stream, so its share
in the feature per unit of activation is the dot product of the two; the cosine leaves lengths out.
Naive equivalent: `neurons("down", layer) @ vector` layer by layer, sorted.
"""

from __future__ import annotations

import pandas as pd

from ..directions import Directions
from ..progress import progress
from .model_weights import StackedWeights


def writers(weights: StackedWeights, directions: Directions, keep: int = 20) -> pd.DataFrame:
    """Neurons before the site of a feature of the stream (the first direction), by the size of
    their cosine with it: name, cosine, dot."""
    vector, layers = directions.vectors[0].float(), directions.site.layer or 0
    tables = []
    with progress("writers", layers, "layers") as advance:
        for layer in range(layers):
            down = weights.stored.neurons("down", layer)
            if post := weights.post_norm("mlp", layer):
                down = down * post.gain.float()  # at some positive scale
            dot = down @ vector
            cosine = dot / (down.norm(dim=1) * vector.norm()).clamp_min(1e-30)
            names = [f"{layer}.down.{i}" for i in range(len(down))]
            layer_table = {"name": names, "cosine": cosine.double(), "dot": dot.double()}
            tables.append(pd.DataFrame(layer_table))
            advance(1)
    every = pd.concat(tables)
    return every.sort_values("cosine", key=abs, ascending=False, ignore_index=True).head(keep)
