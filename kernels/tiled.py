"""The fused projection on the CPU in float32: cache-sized tiles of logits, scanned as made.

Each worker thread takes blocks of rows, multiplies them with one slab of the read-out at a time
into a buffer that stays in cache, and folds the tile into the rows' state (`scan.py`).

Exactness. A float32 logit of d terms is off by at most gamma |x| |w|, gamma = d u / (1 - d u),
u = 2^-24 (Higham, Accuracy and Stability of Numerical Algorithms, 3.1; any order of summation).
More than 4,096 terms are summed in parts, so that d counts as 4,096 and a few. More candidates than
k are kept, close neighbours are scored again in float64, and rows whose k-th candidate is not clear
of the rest are searched again. So the ids are those of a float64 product.

Statistics. Where float32 rounds logits to more than a small fraction of a nat, they are no good in
an exponent: all candidates are scored in float64 and replaced in the sums. Where that does not help
(many logits near the best, or a row whose logits hardly differ), the row's statistics are computed
again in float64.
"""

from __future__ import annotations

from itertools import starmap

import numpy as np
import torch

from .blocks import Buffers, cut, each, new_state, product
from .projection import Projection
from .reference import in_float64
from .results import Results
from .rounding import float32_error, measure
from .scaling import Operands
from .scan import scan_tile

COLUMNS = 512
"""Columns of a tile."""
SPARE = 8
"""Candidates kept beyond k, so that the k-th is usually clear of what is left out."""
FRACTION = 2.0**-16
"""Nats that a logit may be off by rounding, or its row's candidates are all scored in float64."""
DOUBT = 2.0**-9
"""Nats, or standard deviations, that a row may be off before it is computed in float64; what is
compared with it are estimates from above."""


def project_tiled(operands: Operands, k: int, sides: tuple[str, ...], stats: bool) -> Projection:
    """See `project_topk`; contiguous float32 on the CPU."""
    results, readout = Results(operands, k, sides), operands.readout
    kept = min(k + SPARE, len(readout))
    average, widths = measure(readout)
    typical, longest = np.median(widths), float(widths.max())
    buffers = Buffers(torch.float32, COLUMNS)
    slabs = [part.T for part in torch.split(readout, COLUMNS)]
    noise = np.zeros((2, len(operands.vectors)))

    def block(rows: slice) -> None:
        own = operands.rows(rows)
        lengths = own.double().norm(dim=1).numpy()
        bound = float32_error(lengths, longest, readout.shape[1])
        noise[:, rows] = 2.0**-24 * np.outer([typical, longest], lengths)
        results.mean[rows] = own.double() @ average
        centre = results.mean[rows].astype(np.float32)
        state = new_state(centre, kept, results.sides)
        tile, values = buffers.view(len(own), COLUMNS)
        outs = {slab.shape[1]: tile[:, : slab.shape[1]] for slab in slabs}
        soft = results.soft(rows)
        for first, slab in zip(range(0, len(readout), COLUMNS), slabs, strict=True):
            width = slab.shape[1]
            product(own, slab, outs[width])
            scan_tile(values, width, first, 1, soft, centre, *state, kept, stats)
        coarse = stats & (noise[1, rows] * soft > FRACTION)
        results.settle(rows, state, kept, ~coarse, bound)
        results.scanned(rows, state)
        as_scanned = np.ones(len(own)), centre.astype(np.float64)
        results.rescore(rows, state, kept, coarse, (bound, 0.0), bound, *as_scanned, stats)
        results.sums[rows] = state.sums

    each(block, starmap(slice, cut(len(operands.vectors))))
    return results.projection(
        stats, "tiled", noise, DOUBT, lambda few: in_float64(few, results.sides)
    )
