"""How errors fall with an SAE's width: FVU(W) = c + a W^-m (Engels et al., section 4).

c is what no width removes: of the linear error the paper calls c 'dense' and what falls 'absent'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..saes.open import PURSUED


class PowerLaw(NamedTuple):
    """FVU = c + a (W / W_0)^-m with W_0 the smallest width; all three at least 0."""

    c: float
    a: float
    m: float


def power_law(widths: Sequence[float], fvu: Sequence[float]) -> PowerLaw:
    """Least squares over at least three widths; three determine it and leave no error to judge by.

    Raises:
        ValueError: fewer widths.
    """
    from scipy.optimize import least_squares

    x, y = np.asarray(widths, float), np.asarray(fvu, float)
    if len(set(widths)) < 3:
        raise ValueError(f"{len(set(widths))} widths do not determine c, a and m: give 3 or more")
    scale = max(float(np.abs(y).max()), 1e-300)

    def residual(p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(p[0] + p[1] * (x / x.min()) ** -p[2] - y / scale)

    low, high = float(y.min()) / scale, float(y.max()) / scale
    start = [max(low * 0.9, 0.0), max(high - low * 0.9, 1e-9), 0.5]
    bounds = ([0, 0, 0], [np.inf, np.inf, 8])
    c, a, m = map(float, least_squares(residual, start, bounds=bounds, xtol=1e-14).x)
    return PowerLaw(c * scale, a * scale, m)


def bands(measures: pd.DataFrame) -> pd.DataFrame:
    """The parts of each SAE's FVU: `absent`, `linear`, `nonlinear`, `encoder` (sum: `fvu`).

    `group` names the SAEs of one curve: their names without the width. Without a pursued twin
    `encoder` is NaN. With fewer than three widths in a curve, or a linear error below 0 in it (the
    map predicts held-out errors worse than none does), `absent` is NaN and `linear` holds all of
    the linear error.

    Args:
        measures: a run's table, with columns sae, d_sae, measure, value.
    """
    wide = measures.pivot(index=["sae", "d_sae"], columns="measure", values="value").reset_index()
    rows: dict[str, Any] = {row["sae"]: row for row in wide.to_dict("records")}
    own = [row for name, row in rows.items() if not name.endswith(PURSUED)]
    table = pd.DataFrame(_parts(row, rows.get(row["sae"] + PURSUED)) for row in own)
    table["absent"] = np.nan
    for _, curve in table.groupby("group"):
        if _has_law(curve, "linear"):
            floor = power_law(curve["d_sae"].tolist(), curve["linear"].tolist()).c
            dense = curve["linear"].clip(upper=floor)
            table.loc[curve.index, "absent"] = curve["linear"] - dense
            table.loc[curve.index, "linear"] = dense
    return table.sort_values(["group", "d_sae"], ignore_index=True)


def _has_law(curve: pd.DataFrame, quantity: str) -> bool:
    """Whether widths determine a power law of a quantity, which is never below 0."""
    return curve["d_sae"].nunique() >= 3 and bool((curve[quantity] >= 0).all())


def _parts(row: dict[str, Any], pursued: dict[str, Any] | None) -> dict[str, Any]:
    """With a pursued twin the parts are those of its error, and `encoder` is what it saves."""
    best = pursued or row
    return {
        "sae": row["sae"],
        "d_sae": row["d_sae"],
        "group": group(row["sae"], row["d_sae"]),
        "fvu": row["fvu"],
        "linear": best["fvu"] - best["fvu_nonlinear"],
        "nonlinear": best["fvu_nonlinear"],
        "encoder": row["fvu"] - best["fvu"] if pursued else np.nan,
    }


def group(name: str, width: int) -> str:
    """'w768-k32', 768 -> 'k32': what the names of SAEs of several widths have in common."""
    return name.replace(f"w{width}", "").replace(str(width), "").strip("-_ ") or "all"


def fits(measures: pd.DataFrame) -> pd.DataFrame:
    """The power laws of `fvu`, its linear and its nonlinear part: a row for each group and one of
    them; none where fewer than three widths, or values below 0, determine no law."""
    table = bands(measures)
    table["linear"] += table["absent"].fillna(0)
    rows = []
    for name, curve in table.groupby("group"):
        for quantity in ("fvu", "linear", "nonlinear"):
            if not _has_law(curve, quantity):
                continue
            law = power_law(curve["d_sae"].tolist(), curve[quantity].tolist())
            rows.append(
                {"group": name, "quantity": quantity, **law._asdict(), "widths": len(curve)}
            )
    return pd.DataFrame(rows)
