"""What an atlas takes of memory, by arithmetic.

`python -m tests.neurons.wide` and tests/neurons/test_memory.py hold it against what is measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from interp.kernels.screened import best_format

if TYPE_CHECKING:
    from ..model.families import ModelSpec
    from .slices import Slice

CONSTANT = 2**30
"""Bytes of a worker whatever the model: libraries, a tile a core, a table on its way."""
COPIES = 4
"""Of a slice's vectors in float32: as they are read, joined, of length near 1, and with a lens."""
READOUT = 6
"""Bytes for each number of the unembedding: float32, and whitened in half precision."""


def shared_bytes(spec: ModelSpec) -> int:
    """What the workers of a machine have together: the unembedding, and its rows whitened."""
    return READOUT * spec.d_vocab * spec.d_model


def worker_bytes(spec: ModelSpec, slices: Iterable[Slice]) -> int:
    """What each worker has beside that: a piece of a slice with its random directions, and what
    does not depend on the model."""
    widest = max(
        piece.vectors + random * len(piece.kinds)
        for each in slices
        for piece, random in zip(each.pieces, each.random, strict=True)
    )
    numbers = best_format()
    rounded = numbers.bytes if numbers else 0  # of each number of the unembedding
    screen = rounded * spec.d_vocab * spec.d_model
    return COPIES * 4 * widest * spec.d_model + screen + CONSTANT
