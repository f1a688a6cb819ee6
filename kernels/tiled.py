"""The fused projection on the CPU in float32: cache-sized tiles of logits, scanned as made.

Each worker thread takes blocks of rows, multiplies them with one slab of the read-out at a time
into a buffer that stays in cache, and folds the tile into the rows' state (`scan.py`).

Exactness. A float32 logit of d terms is off by at most gamma |x| |w|, gamma = d u / (1 - d u),
u = 2^-24 (Higham, Accuracy and Stability of Numerical Algorithms, 3.1; any order of summation).
More than 4,096 terms are summed in parts, so that d counts as 4,096 and a few. More candidates than
k are kept, close neighbours are scored again in float64, and rows whose k-th candidate is not clear
of the rest are searched again. So the ids are those of a float64 product.
"""

from __future__ import annotations

from itertools import starmap

import numpy as np
import torch
from torch import Tensor

from .blocks import SIGNS, Buffers, Results, cut, each, new_state, product
from .exact import settle
from .projection import Projection
from .rounding import float32_error, measure
from .scan import scan_tile

COLUMNS = 512
"""Columns of a tile."""
SPARE = 8
"""Candidates kept beyond k, so that the k-th is usually clear of what is left out."""


def project_tiled(
    vectors: Tensor, readout: Tensor, k: int, sides: tuple[str, ...], stats: bool
) -> Projection:
    """See `project_topk`; contiguous float32 on the CPU."""
    results = Results(vectors, readout, k, sides)
    kept = min(k + SPARE, len(readout))
    average, lengths = measure(readout)
    bound = float32_error(measure(vectors)[1], float(lengths.max()), readout.shape[1])
    x, w = vectors.numpy(), readout.numpy()
    buffers = Buffers(torch.float32, COLUMNS)
    slabs = [part.T for part in torch.split(readout, COLUMNS)]

    def block(rows: slice) -> None:
        own = vectors[rows]
        results.mean[rows] = own.double() @ average
        centre = results.mean[rows].astype(np.float32)
        state = new_state(centre, kept, results.sides)
        tile, values = buffers.view(len(own), COLUMNS)
        outs = {slab.shape[1]: tile[:, : slab.shape[1]] for slab in slabs}
        scale = np.ones(len(own), np.float32)
        for first, slab in zip(range(0, len(w), COLUMNS), slabs, strict=True):
            width = slab.shape[1]
            product(own, slab, outs[width])
            scan_tile(values, width, first, 1, scale, centre, *state, kept, stats)
        results.sums[rows] = state.sums
        for side in results.sides:
            operands = (SIGNS[side], x[rows], w, bound[rows])
            settle(*state.side(side), k, kept, *operands, *results.of(side, rows))

    each(block, starmap(slice, cut(len(x))))
    return results.projection(stats, "tiled")
