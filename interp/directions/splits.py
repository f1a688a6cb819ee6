"""A score as the sum of three parts, as shares of its variance (`Directions.split`)."""

from __future__ import annotations

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

PARTS = ("reconstruction", "linear", "nonlinear")


def shares(parts: Float[Tensor, "3 tokens n"]) -> pd.DataFrame:
    """Of each score [n]: each part's cov(part, score) / var(score), its `…_spread` var(part) /
    var(score), and `variance`. NaN where a score does not vary."""
    parts = parts - parts.mean(1, keepdim=True)
    score = parts.sum(0)
    variance = score.square().mean(0)
    total = torch.where(variance > 0, variance, torch.nan)
    own, spreads = (parts * score).mean(1) / total, parts.square().mean(1) / total
    columns = {}
    for row, name in enumerate(PARTS):
        columns[name] = own[row].tolist()
        columns[f"{name}_spread"] = spreads[row].tolist()
    return pd.DataFrame({**columns, "variance": variance.tolist()})
