"""What the tables of `circuits.truth` and `circuits.steer` say of all pairs, with intervals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from ..runs.intervals import mean_of, median_of
from .rules import PREDICTING

ABLATIONS = {"resample": "the counterfactual's activations", "mean": "the task's means"}
"""What patched neurons get, as the tables name it and as people read it."""
KEYS = ["task", "rule", "ablation", "part"]
ENOUGH = 0.8
"""Of the target's value: what a circuit is to keep."""
NEARLY_ALL = 0.9
"""Of the gap: what a few neurons are to move."""


def measurable(curves: pd.DataFrame, pairs: pd.DataFrame, least_gap: float) -> pd.DataFrame:
    """The curves without those of a pair whose target falls by less than `least_gap` where all
    neurons are ablated: there is too little to share out.

    Args:
        pairs: the table of all pairs.
    """
    keys = ["task", "pair"]
    ablated = curves[curves["rule"] == "all"][[*keys, "ablation", "value"]]
    both = ablated.merge(pairs[[*keys, "value"]], on=keys, suffixes=("_ablated", ""))
    enough_falls = both["value"] - both["value_ablated"] >= least_gap
    kept = both[enough_falls][[*keys, "ablation"]]
    return curves.merge(kept, on=[*keys, "ablation"])


def shares(curves: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Rows of the table `shares`: medians over pairs."""
    for key, rows in curves.groupby([*KEYS, "n"], sort=False):
        values = rows["share"].to_numpy()
        about = dict(zip([*KEYS, "n"], key, strict=True))
        nearly = mean_of(values >= NEARLY_ALL)
        columns = median_of(values).columns("median") | nearly.columns("nearly_all")
        yield {**about, "pairs": len(values), **columns, "unit": "pair"}


def needed(curves: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Rows of the table `needed`: how many neurons give 80 %."""
    rules = curves[curves["rule"] != "all"]
    for key, rows in rules.groupby(KEYS, sort=False):
        numbers = np.array([enough(one) for _, one in rows.groupby("pair")])
        about = dict(zip(KEYS, key, strict=True))
        reached = int(np.isfinite(numbers).sum())
        columns = median_of(numbers).columns("neurons")
        yield {**about, "pairs": len(numbers), "reached": reached, **columns, "unit": "pair"}


def enough(curve: pd.DataFrame, share: float = ENOUGH) -> float:
    """The number of neurons at which a pair's curve first gets to a share, between two counts by
    the logarithm; infinite if it does not."""
    curve = curve.sort_values("n")
    numbers, values = np.log(curve["n"].to_numpy(float)), curve["share"].to_numpy(float)
    there = np.flatnonzero(values >= share)
    if not len(there):
        return float("inf")
    i = int(there[0])
    if i == 0:
        return float(np.exp(numbers[0]))
    way = (share - values[i - 1]) / (values[i] - values[i - 1])
    return float(np.exp(numbers[i - 1] + way * (numbers[i] - numbers[i - 1])))


def correlations(effects: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Rows of the table `correlations`: Pearson's r over the patches of a pair, its median over
    pairs. A pair in which either has no spread has no r."""
    for (task, what), rows in effects.groupby(["task", "what"], sort=False):
        for rule in PREDICTING:
            each = [_correlation(one[rule], one["real"]) for _, one in rows.groupby("pair")]
            values = [r for r in each if np.isfinite(r)]
            if not values:
                continue
            about = {"task": task, "what": what, "rule": rule, "pairs": len(values)}
            yield {**about, **median_of(values).columns("r"), "unit": "pair"}


def _correlation(predicted: pd.Series, real: pd.Series) -> float:
    a, b = predicted.to_numpy(float), real.to_numpy(float)
    if len(a) < 3 or not (a.std() and b.std()):
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def fits(sweep: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Rows of the table `fits`. A pair in which nothing is predicted has no line."""
    for reach, rows in (("within", sweep[sweep["factor"].abs() <= 1]), ("all", sweep)):
        for rule in PREDICTING:
            lines = [_line(one[rule], one["real"]) for _, one in rows.groupby("pair")]
            known = np.array([line for line in lines if np.isfinite(line).all()]).reshape(-1, 2)
            if not len(known):
                continue
            many = len(rows.groupby(["pair", "layer", "position", "neuron"]))
            about = {"task": str(rows["task"].iloc[0]), "reach": reach, "rule": rule}
            columns = median_of(known[:, 0]).columns("slope") | median_of(known[:, 1]).columns("r2")
            yield {**about, "pairs": len(known), "neurons": many, **columns, "unit": "pair"}


def _line(predicted: pd.Series, real: pd.Series) -> tuple[float, float]:
    """Slope and r^2 of the real change on the predicted."""
    x, y = predicted.to_numpy(float), real.to_numpy(float)
    if len(x) < 3 or not (x.std() and y.std()):
        return float("nan"), float("nan")
    r = np.corrcoef(x, y)[0, 1]
    return float(r * y.std() / x.std()), float(r**2)
