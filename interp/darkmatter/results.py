"""Stored dark matter runs as tables: what the command line, page and notebook show."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..runs.store import Run

COLUMNS = {
    "l0": "L0",
    "fvu": "FVU",
    "fvu_nonlinear": "nonlinear",
    "r2_vector": "r2 vector",
    "r2_vector_weighted": "weighted",
    "r2_norm error": "r2 norm",
    "scale": "scale",
    "fvu_corrected": "FVU, corrected",
    "fvu_nonlinear_corrected": "nonlinear, corrected",
    "r2_vector_weighted_corrected": "weighted, corrected",
    "r2_norm corrected": "r2 norm, corrected",
}
"""Measures in the summary, and their names there."""


def summary(run: Run) -> pd.DataFrame:
    """A row for each SAE: the main measures and the percent of the loss that each part recovers,
    NaN where the SAE may have cost nothing (an interval without ends)."""
    measures = run.table("measures")
    order = dict.fromkeys(measures["sae"])
    wide = measures.pivot(index="sae", columns="measure", values="value").loc[list(order)]
    rows = wide[list(COLUMNS)].rename(columns=COLUMNS)
    if run.has("downstream"):
        costs = run.table("downstream")
        known = costs.assign(recovered=costs["recovered"].where(bounded(costs)))
        recovered = known.pivot(index="sae", columns="setting", values="recovered")
        for part in ("linear", "nonlinear"):
            rows[f"{part} recovers %"] = recovered[f"sae + {part}"]
        ce = costs.set_index(["sae", "setting"])["ce"]
        mean, original = ce["", "mean"], ce["", "original"]
        rows["loss recovered"] = (mean - ce.xs("sae", level="setting")) / (mean - original)
    return rows.reset_index()


def bounded(costs: pd.DataFrame) -> pd.Series:
    """Rows of `downstream` whose percentage is known: not if the SAE may have cost nothing."""
    known: pd.Series = ~(np.isinf(costs["low"]) | np.isinf(costs["high"]))
    return known


def intervals(run: Run, measures: list[str]) -> pd.DataFrame:
    """Some measures as 'value (low-high)', a row for each SAE; 'value' where there is no
    interval."""
    table = run.table("measures")
    table = table[table["measure"].isin(measures)]
    order = list(dict.fromkeys(table["sae"]))
    texts = [
        f"{value:.3f}" + (f" ({low:.3f}-{high:.3f})" if low == low else "")
        for value, low, high in zip(table["value"], table["low"], table["high"], strict=True)
    ]
    wide = table.assign(text=texts).pivot(index="sae", columns="measure", values="text")
    return wide.loc[order, measures].reset_index()
