"""How a vocabulary is cut into the slabs that tiles are made of, and how many candidates each may
give."""

from __future__ import annotations

import math
from typing import NamedTuple


class Slab(NamedTuple):
    """The tokens first, first + step, ... of the vocabulary, `width` of them."""

    first: int
    step: int
    width: int
    kept: int
    """Candidates worth keeping a side after this slab and those before it."""


def strided(vocabulary: int, kept: int, columns: int) -> list[Slab]:
    """The slabs of a vocabulary: every step-th token, because its order is not random.

    So each slab is a fair sample. Of the best `kept` only a share lies in the first slabs, and they
    keep that share, plus 3 standard deviations and a few. A row with more than that in there ends
    with too few candidates, is not proven, and is searched again.
    """
    step = -(-vocabulary // columns)
    slabs = []
    for first in range(step):
        share = kept * (first + 1) / step
        worth = min(math.ceil(share + 3.0 * math.sqrt(share) + 4.0), kept)
        slabs.append(Slab(first, step, len(range(first, vocabulary, step)), worth))
    return slabs
