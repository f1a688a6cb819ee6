"""What scores of directions, and what steers with them, depend on, as one hash
(`Directions.identity`)."""

from __future__ import annotations

import hashlib
import json

import torch

from .directions import Directions
from .vectors import BLOCK


def identity(directions: Directions) -> str:
    """sha256 over vectors, site, reading, what it needs to know of each, and names."""
    about = {
        "site": str(directions.site),
        "shape": list(directions.vectors.shape),
        "reading": directions.reading.identity(),
        "numbers": directions.reading.numbers(directions.index),
        "names": directions.names,
    }
    made = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for rows in torch.split(directions.vectors, BLOCK):
        made.update(rows.double().cpu().contiguous().numpy().tobytes())
    return made.hexdigest()
