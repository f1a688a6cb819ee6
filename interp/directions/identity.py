"""What scores of directions, and what steers with them, depend on, as one hash
(`Directions.identity`)."""

from __future__ import annotations

import hashlib
import json

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ..model.site import Site
from .reading import Reading
from .vectors import BLOCK


def identity(
    vectors: Float[Tensor, "n d"], site: Site, reading: Reading, index: pd.DataFrame
) -> str:
    """sha256 over vectors, site, reading, what it needs to know of each, and names."""
    about = {
        "site": str(site),
        "shape": list(vectors.shape),
        "reading": reading.identity(),
        "numbers": reading.numbers(index),
        "names": list(map(str, index["name"])),
    }
    made = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for rows in torch.split(vectors, BLOCK):
        made.update(rows.double().cpu().contiguous().numpy().tobytes())
    return made.hexdigest()
