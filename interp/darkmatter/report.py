"""The tables of a dark matter run, made from its sums; what they hold is said in `measure.py`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from .contexts import Contexts
from .downstream import SCALED, SETTINGS, Prices
from .one_pass import TARGETS, OnePass
from .sums import Errors, ScalarSums, resampled

VARIANTS = ((False, 0.0), (True, 0.0), (False, 1e-3), (True, 1e-3))
"""(intercept, ridge) of the regressions shown side by side; the paper's is the first."""


def tables(sums: OnePass, prices: Prices, shown: list[pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Every table of the run by its name."""
    found = {
        "measures": pd.DataFrame(_measures(sums)),
        "variants": pd.DataFrame(_variants(sums)),
        "scaling": pd.DataFrame(_scaling(sums)),
        "tokens": pd.concat(shown, ignore_index=True),
    }
    if prices.rows:
        found["downstream"] = pd.DataFrame(_downstream(sums.readers.names, prices))
    if sums.earlier:
        found["earlier"] = pd.DataFrame({"sae": sums.readers.names, "r2": sums.earlier_r2()})
    return found


def fits(sums: OnePass) -> dict[str, Tensor]:
    """The linear maps x -> error and the shrinkages, in the order of the SAEs' names."""
    assert sums.fit is not None
    d = sums.readers.d_in
    weights = sums.fit.weights.view(d, len(sums.readers.names), d).transpose(0, 1)
    return {
        "weights": weights.float().contiguous(),
        "intercept": sums.fit.intercept.view(-1, d).float(),
        "scale": torch.tensor([s.scale for s in sums.shrinkages]),
        "x_mean": sums.shrinkages[0].x_mean.float(),
        "e_mean": torch.stack([s.e_mean for s in sums.shrinkages]).float(),
    }


def shown_tokens(
    names: tuple[str, ...], pieces: list[str], part: Contexts, parts: Errors, losses: Tensor
) -> pd.DataFrame:
    """One row a token and reader."""
    chosen = part.chosen.cpu()
    position = (part.batch.mask.long().cumsum(1) - 1).cpu()[chosen]
    frames = []
    for at, name in enumerate(names):
        columns = {
            "context": part.each(part.context),
            "position": position,
            "text": pieces,
            "sae": name,
            "x": parts.x.square().sum(1),
            "error": parts.error[:, at].square().sum(1),
            "nonlinear": parts.nonlinear[:, at].square().sum(1),
            "loss": losses[chosen].double(),
        }
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def _measures(sums: OnePass) -> Iterator[dict[str, Any]]:
    drawn, known = resampled(sums.vectors.count), resampled(sums.scalars.moments[:, 0, 0])
    for at, name in enumerate(sums.readers.names):
        vectors = sums.vectors.measures(at, sums.shrinkages[at], drawn.weights)
        numbers = _of_numbers(sums.scalars, name, known.weights)
        for resamples, found in ((drawn, vectors), (known, numbers)):
            for measure, values in found.items():
                about = {"sae": name, "d_sae": sums.readers.widths[at], "measure": measure}
                yield {**about, **resamples.interval(values)}


def _of_numbers(scalars: ScalarSums, name: str, weights: Tensor) -> dict[str, Tensor]:
    """The measures of numbers per token, for every weighting of the groups."""
    found = {"l0": scalars.mean(f"active {name}", weights)}
    for target in ("x", *(f"{t} {name}" for t in TARGETS)):
        short = target.partition(" ")[0]
        predicted = f"predicted {target}"
        found[f"r2_norm {short}"] = scalars.r2_of_prediction(target, predicted, weights)
    error, rest = f"error {name}", f"nonlinear {name}"
    found["r2_error_from_token"] = scalars.r2_of_prediction(error, f"by token {name}", weights)
    for given, column in (("loss", "loss"), ("active", f"active {name}"), ("x", "x")):
        for part, target in (("error", error), ("nonlinear", rest)):
            found[f"r2_{part}_from_{given}"] = scalars.r2_of_regression(target, (column,), weights)
    return found


def _variants(sums: OnePass) -> Iterator[dict[str, Any]]:
    gram, shape = sums.test_gram, (len(sums.readers.names), sums.readers.d_in)
    assert gram is not None
    variance = gram.xx.trace()
    spread = gram.yy.view(shape)
    for intercept, ridge in VARIANTS:
        fit = sums.solved(ridge, intercept)
        error = gram.squared_error(fit).view(shape)
        if fit.method != "cholesky":  # the least norm of many solutions is none of these rows
            error = torch.full_like(error, torch.nan)
        for at, name in enumerate(sums.readers.names):
            yield {
                "sae": name,
                "intercept": intercept,
                "ridge": ridge,
                "r2_vector": float((1 - error[at] / spread[at]).mean()),
                "r2_vector_weighted": float(1 - error[at].sum() / spread[at].sum()),
                "fvu_nonlinear": float(error[at].sum() / variance),
            }


def _scaling(sums: OnePass) -> Iterator[dict[str, Any]]:
    """Lengths of a wider SAE's errors from those of a narrower one on the same tokens."""
    scalars, readers = sums.scalars, sums.readers
    drawn = resampled(scalars.moments[:, 0, 0])
    pairs = itertools.combinations(zip(readers.names, readers.widths, strict=True), 2)
    for (small, one), (large, other) in pairs:
        if one >= other:
            continue
        own = (f"length error {small}", f"length nonlinear {small}")
        for part in ("error", "nonlinear"):
            for given, columns in (("error", own[:1]), ("error + nonlinear", own)):
                target = f"length {part} {large}"
                values = scalars.r2_of_regression(target, columns, drawn.weights)
                about = {"small": small, "large": large, "target": part, "given": given}
                bounds = drawn.interval(values)
                yield {**about, "r2": bounds.pop("value"), **bounds}


def _downstream(names: tuple[str, ...], prices: Prices) -> Iterator[dict[str, Any]]:
    drawn, nats, recovered = prices.table()
    for at, name in enumerate(names):
        for column, setting in enumerate((*SETTINGS, *SCALED)):
            bounds = drawn.interval(recovered[:, at, column])
            ce = float(nats[0, at, column])
            about = {"sae": name, "setting": setting, "ce": ce, "recovered": bounds.pop("value")}
            yield {**about, **bounds}
    for setting, found, recovers in (
        ("original", prices.original, 100.0),
        ("mean", prices.mean, float("nan")),
    ):
        ce = sum(found) / sum(prices.tokens)
        yield {"sae": "", "setting": setting, "ce": ce, "recovered": recovers}
