"""The tables of a dark matter run, from what its pass gathered (columns: see `measure.py`)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ..runs.intervals import Interval, Resamples, resampled
from ..text.contexts import Contexts
from .accumulators import UNIT, ScalarSums, SplitErrors, Weights
from .downstream import SCALED, SETTINGS, ReplacementCosts
from .regressions import TARGETS, ErrorRegressions

VARIANTS = ((False, 0.0), (True, 0.0), (False, 1e-3), (True, 1e-3))
"""(intercept, ridge) of the regressions shown side by side; the paper's is the first."""


def tables(
    regressions: ErrorRegressions, costs: ReplacementCosts, shown: list[pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """Every table of the run by its name."""
    saes = regressions.saes
    made = {
        "measures": pd.DataFrame(_measures(regressions)),
        "variants": pd.DataFrame(_variants(regressions)),
        "scaling": pd.DataFrame(_scaling(regressions)),
        "tokens": pd.concat(shown, ignore_index=True),
    }
    if costs.settings:
        made["downstream"] = pd.DataFrame(_downstream(saes.names, costs))
    if regressions.earlier:
        made["earlier"] = pd.DataFrame({"sae": saes.names, "r2": regressions.earlier_r2()})
    return made


def fits(regressions: ErrorRegressions) -> dict[str, Tensor]:
    """The linear maps x -> error and the shrinkages, in the order of the SAEs' names."""
    assert regressions.fit is not None
    d = regressions.saes.d_in
    weights = regressions.fit.weights.view(d, len(regressions.saes.names), d).transpose(0, 1)
    return {
        "weights": weights.float().contiguous(),
        "intercept": regressions.fit.intercept.view(-1, d).float(),
        "scale": torch.tensor([s.scale for s in regressions.shrinkages]),
        "x_mean": regressions.shrinkages[0].x_mean.float(),
        "e_mean": torch.stack([s.e_mean for s in regressions.shrinkages]).float(),
    }


def shown_tokens(
    names: tuple[str, ...], pieces: list[str], part: Contexts, split: SplitErrors, losses: Tensor
) -> pd.DataFrame:
    """One row for each token and SAE."""
    chosen = part.chosen.cpu()
    position = (part.batch.mask.long().cumsum(1) - 1).cpu()[chosen]
    about = {"context": part.each(part.context), "position": position, "text": pieces}
    frames = [
        pd.DataFrame(
            {
                **about,
                "sae": name,
                "x": split.x.square().sum(1),
                "error": split.error[:, at].square().sum(1),
                "nonlinear": split.nonlinear[:, at].square().sum(1),
                "loss": losses[chosen].double(),
            }
        )
        for at, name in enumerate(names)
    ]
    return pd.concat(frames, ignore_index=True)


def _interval(drawn: Resamples, values: Tensor, name: str = "value") -> dict[str, Any]:
    """The columns of a value with its interval and the interval's unit."""
    return _columns(drawn.interval(values), name)


def _columns(found: Interval, name: str) -> dict[str, Any]:
    return {name: found.value, "low": found.low, "high": found.high, "unit": UNIT}


def _measures(regressions: ErrorRegressions) -> Iterator[dict[str, Any]]:
    vectors, scalars, saes = regressions.vectors, regressions.scalars, regressions.saes
    drawn, known = resampled(vectors.count), resampled(scalars.moments[:, 0, 0])
    for at, name in enumerate(saes.names):
        of_vectors = vectors.measures(at, regressions.shrinkages[at], drawn.weights)
        of_numbers = _of_numbers(scalars, name, known.weights)
        for resamples, measures in ((drawn, of_vectors), (known, of_numbers)):
            for measure, values in measures.items():
                about = {"sae": name, "d_sae": saes.widths[at], "measure": measure}
                yield {**about, **_interval(resamples, values)}


def _of_numbers(scalars: ScalarSums, name: str, weights: Weights) -> dict[str, Tensor]:
    """The measures of numbers per token, for every weighting of the groups."""
    measures = {"l0": scalars.mean(f"active {name}", weights)}
    for target in ("x", *(f"{t} {name}" for t in TARGETS)):
        short = target.partition(" ")[0]
        predicted = f"predicted {target}"
        measures[f"r2_norm {short}"] = scalars.r2_of_prediction(target, predicted, weights)
    error, rest = f"error {name}", f"nonlinear {name}"
    measures["r2_error_from_token"] = scalars.r2_of_prediction(error, f"by token {name}", weights)
    for given, column in (("loss", "loss"), ("active", f"active {name}"), ("x", "x")):
        for part, target in (("error", error), ("nonlinear", rest)):
            r2 = scalars.r2_of_regression(target, (column,), weights)
            measures[f"r2_{part}_from_{given}"] = r2
    return measures


def _variants(regressions: ErrorRegressions) -> Iterator[dict[str, Any]]:
    gram, shape = regressions.test_gram, (len(regressions.saes.names), regressions.saes.d_in)
    assert gram is not None
    variance = gram.xx.trace()
    spread = gram.yy.view(shape)
    for intercept, ridge in VARIANTS:
        fit = regressions.solved(ridge, intercept)
        error = gram.squared_error(fit).view(shape)
        if fit.method != "cholesky":  # a solution of least norm is not what a row stands for
            error = torch.full_like(error, torch.nan)
        for at, name in enumerate(regressions.saes.names):
            yield {
                "sae": name,
                "intercept": intercept,
                "ridge": ridge,
                "r2_vector": float((1 - error[at] / spread[at]).mean()),
                "r2_vector_weighted": float(1 - error[at].sum() / spread[at].sum()),
                "fvu_nonlinear": float(error[at].sum() / variance),
            }


def _scaling(regressions: ErrorRegressions) -> Iterator[dict[str, Any]]:
    """Lengths of a wider SAE's errors from those of a narrower one on the same tokens."""
    scalars, saes = regressions.scalars, regressions.saes
    drawn = resampled(scalars.moments[:, 0, 0])
    pairs = itertools.combinations(zip(saes.names, saes.widths, strict=True), 2)
    for (small, one), (large, other) in pairs:
        if one >= other:
            continue
        own = (f"length error {small}", f"length nonlinear {small}")
        for part in ("error", "nonlinear"):
            for given, columns in (("error", own[:1]), ("error + nonlinear", own)):
                target = f"length {part} {large}"
                values = scalars.r2_of_regression(target, columns, drawn.weights)
                about = {"small": small, "large": large, "target": part, "given": given}
                yield {**about, **_interval(drawn, values, "r2")}


def _downstream(names: tuple[str, ...], costs: ReplacementCosts) -> Iterator[dict[str, Any]]:
    drawn, nats, gained, whole = costs.resampled()
    for at, name in enumerate(names):
        for column, setting in enumerate((*SETTINGS, *SCALED)):
            about = {"sae": name, "setting": setting, "ce": float(nats[0, at, column])}
            found = drawn.ratio(100 * gained[:, at, column], whole[:, at, column])
            yield {**about, **_columns(found, "recovered")}
    tokens = sum(costs.tokens)
    for setting, total, share in (
        ("original", sum(costs.original), 100.0),
        ("mean", sum(costs.mean), float("nan")),
    ):
        yield {"sae": "", "setting": setting, "ce": total / tokens, "recovered": share}
