"""How many neurons of each layer spell something: more than random directions read the same way.

A row of the atlas counts where its z is above a percentile of the z of the layer's own random
directions, which went through the same lens, gain and head: what those do to any direction is in
the threshold.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float

from ..errors import UserError
from ..runs.intervals import group_weights, middle
from ..runs.query import query
from ..runs.store import Run
from .rows import has_random
from .search import narrow

FEWEST = 200
"""Random rows of a layer and kind that a percentile needs."""
RESAMPLES = 200


def needed(atlas: Run) -> int:
    """The random directions for each kind that an atlas needs for it."""
    return FEWEST // 2 * int(atlas.manifest["model"]["n_layers"])


def above_chance(atlas: Run, percentile: float = 99.0) -> pd.DataFrame:
    """A row a layer and kind: `share` of its rows (both signs) with a z above the percentile of the
    random rows' z, with the ends of its 95 % interval (neurons, with both signs, and random
    directions drawn anew), `threshold`, `neurons`, `random`.

    Raises:
        UserError: an atlas with too few random directions for it.
    """
    if not 50 <= percentile < 100:
        raise UserError(f"the percentile must be from 50 to below 100, not {percentile:g}")
    if not has_random(atlas):
        raise UserError("an earlier version made this atlas, without random directions")
    columns = "SELECT layer, kind, coalesce(z, 0) AS z FROM {} ORDER BY layer, kind, name"
    named = "(SELECT *, concat_ws('.', neuron, side) AS name FROM {})"
    every, random = (
        query(columns.format(named.format(table))) for table in (narrow(atlas), atlas.sql("random"))
    )
    chance = dict(list(random.groupby(["layer", "kind"])["z"]))
    rows = []
    for (layer, kind), own in every.groupby(["layer", "kind"])["z"]:
        beside = chance.get((layer, kind), pd.Series(dtype=float)).to_numpy(float)
        if len(beside) < FEWEST:
            raise UserError(
                f"layer {layer} has {len(beside) // 2} random directions of {kind}, too few: make "
                f"the atlas with --random {needed(atlas)}"
            )
        pairs, nulls = own.to_numpy(float).reshape(-1, 2), beside.reshape(-1, 2)
        low, high = middle(_resampled(pairs, nulls, percentile))
        threshold = float(np.percentile(nulls, percentile))
        share = float((pairs > threshold).mean())
        about = {"neurons": len(pairs), "random": len(nulls), "threshold": threshold}
        rows.append(
            {"layer": layer, "kind": kind, "share": share, "share_low": low, "share_high": high}
            | about
        )
    return pd.DataFrame(rows)


def _resampled(
    pairs: Float[np.ndarray, "neurons 2"], nulls: Float[np.ndarray, "random 2"], percentile: float
) -> Float[np.ndarray, " resamples"]:
    """The share, with neurons and random directions drawn with replacement."""
    ordered = np.sort(nulls.ravel())
    which = np.argsort(nulls.ravel(), kind="stable") // 2
    counts = group_weights(len(nulls), RESAMPLES)[:, which].cumsum(1)
    at = (counts < percentile / 100 * counts[:, -1:]).sum(1).clip(max=len(ordered) - 1)
    above = (pairs[None] > ordered[at][:, None, None]).mean(2)
    drawn = group_weights(len(pairs), RESAMPLES, seed=1)
    shares: Float[np.ndarray, " resamples"] = (drawn * above).sum(1) / len(pairs)
    return shares
