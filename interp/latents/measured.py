"""A stored run of `saes measure` as one table: what the command line and a notebook show."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pandas as pd

from ..runs.store import Run

COLUMNS = {
    "l0": "L0",
    "fvu": "FVU",
    "fvu_uncentred": "uncentred",
    "gamma": "gamma",
    "cosine": "cosine",
    "dead": "dead",
    "loss_recovered": "loss recovered",
}
"""Measures of `measures.parquet` in the summary, and their names there."""
ABLATED = 20
"""Latents set to 0 in the summary's score of targeted perturbation."""


def summary(run: Run) -> pd.DataFrame:
    """A row for each SAE: each figure as 'value (low-high)', 'value' where it has no interval."""
    found = {
        (row["sae"], COLUMNS[row["measure"]]): _text(row, "value", "")
        for row in run.table("measures").to_dict("records")
        if row["measure"] in COLUMNS
    }
    if run.has("probing"):
        for row in _means(run, "probing", "class"):
            if row["features"] == "latents":
                found[row["sae"], f"probe, {row['k']}"] = _text(row, "accuracy", "accuracy_")
        for row in _means(run, "perturbation", "class"):
            if row["n"] == ABLATED:
                found[row["sae"], f"TPP, {ABLATED}"] = _text(row, "score", "score_")
    if run.has("absorption") and len(run.table("absorption")):
        for row in _means(run, "absorption", "letter"):
            found[row["sae"], "absorption"] = _text(row, "fraction", "fraction_")
            found[row["sae"], "full"] = _text(row, "full", "full_")
    names = list(dict.fromkeys(sae for sae, _ in found))
    columns = list(dict.fromkeys(column for _, column in found))
    rows = [{"sae": sae, **{c: found.get((sae, c), "") for c in columns}} for sae in names]
    return pd.DataFrame(rows)


def _means(run: Run, table: str, over: str) -> list[dict[Hashable, Any]]:
    rows = run.table(table)
    return rows[rows[over] == ""].to_dict("records")


def _text(row: dict[Hashable, Any], value: str, ends: str) -> str:
    shown, low, high = (float(row[name]) for name in (value, f"{ends}low", f"{ends}high"))
    return f"{shown:.3g}" + (f" ({low:.3g}-{high:.3g})" if low == low else "")
