"""Which neurons write a feature: their down vectors compared with what reads the stream.

A neuron of an earlier layer adds its down vector times its activation to the stream, so its share
in the feature per unit of activation is the dot product of the two; the cosine leaves lengths out.
Naive equivalent: `W_down[layer] @ vector` layer by layer, sorted.
"""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from ..directions import Directions
from ..errors import UserError
from ..progress import progress
from .model_weights import StackedWeights


def writers(
    weights: StackedWeights, directions: Directions, row: int = 0, keep: int = 20
) -> pd.DataFrame:
    """Neurons before a feature's site by the size of their cosine with it: name, cosine, dot.

    Raises:
        UserError: a site with no neuron before it, or one behind the norm.
    """
    site = directions.site
    if site.kind != "resid_pre" or not site.layer:
        raise UserError(f"{site} has no writers: give a feature at 1.resid_pre or later")
    vector = directions.vectors[row].float()
    cosines: list[Tensor] = []
    dots: list[Tensor] = []
    with progress("writers", site.layer, "layers") as advance:
        for layer in range(site.layer):
            down = weights.stored.neurons("down", layer)
            post = weights.post_norm("mlp", layer)
            if post is not None:
                down = down * post.gain.float()  # at some positive scale
            dots.append(down @ vector)
            cosines.append(dots[-1] / (down.norm(dim=1) * vector.norm()).clamp_min(1e-30))
            advance(1)
    cosine, dot = torch.cat(cosines), torch.cat(dots)
    best = cosine.abs().topk(min(keep, len(cosine))).indices
    width = weights.spec.d_mlp
    return pd.DataFrame(
        {
            "name": [f"{i // width}.down.{i % width}" for i in best.tolist()],
            "cosine": cosine[best].tolist(),
            "dot": dot[best].tolist(),
        }
    )
