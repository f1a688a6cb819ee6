"""What the scores of directions depend on, as one print: two that agree in it score alike."""

from __future__ import annotations

import hashlib
import json

import torch

from .directions import Directions
from .reading import Encoder


def identity(directions: Directions) -> str:
    """sha256 over the model, the site, the vectors, the reading and its columns of the index. Names
    and provenance are no part of it, nor is the place of an SAE that says what it is."""
    made = directions.provenance
    reading = directions.reading.record()
    if isinstance(directions.reading, Encoder) and directions.reading.fingerprint:
        del reading["sae"]
    vectors = directions.vectors.contiguous()
    about = {
        "model": made.fingerprint or made.model,
        "site": str(directions.site),
        "reading": reading,
        "vectors": [str(vectors.dtype), list(vectors.shape)],
    }
    index = directions.index
    constants = index["constant"] if "constant" in index else [0.0] * len(index)
    about["constant"] = [float(value) for value in constants]
    if column := directions.reading.COLUMN:
        about[column] = [int(value) for value in index[column]]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    digest.update(vectors.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
