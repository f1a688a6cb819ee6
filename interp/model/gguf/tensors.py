"""Tensors of a GGUF file -> float32 in a safetensors file, a few rows at a time.

safetensors' own writers want every tensor in memory at once. The format is simple: the length of a
header, the header (JSON: name -> dtype, shape, place), and the numbers in that order.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .file import Stored

_CHUNK_BYTES = 16 * 2**20
"""So many bytes of float32 are dequantised at a time."""


@dataclass(frozen=True)
class Planned:
    """A tensor to write, and what llama.cpp did to it that is undone."""

    stored: Stored
    order: NDArray[np.int64] | None = None
    """Row i of what is written is the stored row order[i]."""
    shift: float = 0.0
    """Added to every number."""
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored.shape[::-1] if self.transposed else self.stored.shape


def size_of(planned: dict[str, Planned]) -> int:
    """Bytes of the tensors in float32."""
    return sum(4 * prod(plan.shape) for plan in planned.values())


def write_safetensors(
    planned: dict[str, Planned], path: Path, advance: Callable[[int], None]
) -> None:
    """Write the tensors one after the other; `advance` hears of every byte."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, plan in planned.items():
        size = 4 * prod(plan.shape)
        header[name] = {"dtype": "F32", "shape": plan.shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for plan in planned.values():
            for chunk in _chunks(plan):
                out.write(chunk.astype("<f4", copy=False).tobytes())
                advance(chunk.nbytes)


def _chunks(plan: Planned):  # type: ignore[no-untyped-def]
    """The numbers of a tensor in the order they are written; a transposed one is one chunk."""
    rows = len(plan.stored.packed)
    if plan.transposed:
        yield plan.stored.rows(slice(None)).T + np.float32(plan.shift)
        return
    step = max(_CHUNK_BYTES * rows // (4 * prod(plan.shape)), 1)
    for start in range(0, rows, step):
        chosen = slice(start, start + step)
        values = plan.stored.rows(chosen if plan.order is None else plan.order[chosen])
        yield values + np.float32(plan.shift) if plan.shift else values
