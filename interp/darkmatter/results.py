"""Stored dark matter runs as tables: what the command line, page and notebook show."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

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
"""Measures in the summary, and what they are called there."""


def summary(run: Path) -> pd.DataFrame:
    """A row an SAE: the main measures, and the percent of the loss that each part recovers."""
    measures = pd.read_parquet(run / "measures.parquet")
    order = dict.fromkeys(measures["sae"])
    wide = measures.pivot(index="sae", columns="measure", values="value").loc[list(order)]
    found = wide[list(COLUMNS)].rename(columns=COLUMNS)
    if (run / "downstream.parquet").exists():
        prices = pd.read_parquet(run / "downstream.parquet")
        recovered = prices.pivot(index="sae", columns="setting", values="recovered")
        for part in ("linear", "nonlinear"):
            found[f"{part} recovers %"] = recovered[f"sae + {part}"]
        ce = prices.set_index(["sae", "setting"])["ce"]
        mean, original = ce["", "mean"], ce["", "original"]
        lost = (mean - ce.xs("sae", level="setting")) / (mean - original)
        found["loss recovered"] = lost
    return found.reset_index()


def intervals(run: Path, measures: list[str]) -> pd.DataFrame:
    """Some measures as 'value (low-high)', a row an SAE; the value alone where there is no
    interval."""
    table = pd.read_parquet(run / "measures.parquet")
    table = table[table["measure"].isin(measures)]
    order = list(dict.fromkeys(table["sae"]))
    said = [
        f"{value:.3f}" + (f" ({low:.3f}-{high:.3f})" if low == low else "")
        for value, low, high in zip(table["value"], table["low"], table["high"], strict=True)
    ]
    wide = table.assign(said=said).pivot(index="sae", columns="measure", values="said")
    return wide.loc[order, measures].reset_index()
