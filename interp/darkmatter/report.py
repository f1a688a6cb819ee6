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
from .sums import Errors, interval, resampled

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
            "context": part.context.cpu()[chosen],
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
    weights = resampled(sums.vectors.count)
    known = resampled(sums.scalars.moments[:, 0, 0])
    for at, name in enumerate(sums.readers.names):
        found = sums.vectors.measures(at, sums.shrinkages[at], weights)
        scalars = sums.scalars
        found["l0"] = scalars.mean(f"active {name}", known)
        for target in ("x", *(f"{t} {name}" for t in TARGETS)):
            short = target.partition(" ")[0]
            found[f"r2_norm {short}"] = scalars.r2_of_prediction(
                target, f"predicted {target}", known
            )
        error, rest = f"error {name}", f"nonlinear {name}"
        found["r2_error_from_token"] = scalars.r2_of_prediction(error, f"by token {name}", known)
        for given, column in (("loss", "loss"), ("active", f"active {name}"), ("x", "x")):
            for part, target in (("error", error), ("nonlinear", rest)):
                found[f"r2_{part}_from_{given}"] = scalars.r2_of_regression(
                    target, (column,), known
                )
        for measure, values in found.items():
            about = {"sae": name, "d_sae": sums.readers.widths[at], "measure": measure}
            yield {**about, **interval(values)}


def _variants(sums: OnePass) -> Iterator[dict[str, Any]]:
    gram, shape = sums.test_gram, (len(sums.readers.names), sums.readers.d_in)
    assert gram is not None
    variance = gram.xx.trace()
    spread = gram.yy.view(shape)
    for intercept, ridge in VARIANTS:
        error = gram.squared_error(sums.solved(ridge, intercept)).view(shape)
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
    known = resampled(scalars.moments[:, 0, 0])
    pairs = itertools.combinations(zip(readers.names, readers.widths, strict=True), 2)
    for (small, one), (large, other) in pairs:
        if one >= other:
            continue
        own = (f"length error {small}", f"length nonlinear {small}")
        for part in ("error", "nonlinear"):
            for given, columns in (("error", own[:1]), ("error + nonlinear", own)):
                values = scalars.r2_of_regression(f"length {part} {large}", columns, known)
                about = {"small": small, "large": large, "target": part, "given": given}
                bounds = interval(values)
                yield {**about, "r2": bounds.pop("value"), **bounds}


def _downstream(names: tuple[str, ...], prices: Prices) -> Iterator[dict[str, Any]]:
    weights = resampled(torch.ones(len(prices.rows)))
    nats, recovered = prices.table(weights)
    for at, name in enumerate(names):
        for column, setting in enumerate((*SETTINGS, *SCALED)):
            bounds = interval(recovered[:, at, column])
            ce = float(nats[0, at, column])
            about = {"sae": name, "setting": setting, "ce": ce, "recovered": bounds.pop("value")}
            yield {**about, **bounds}
    for setting, found, recovers in (
        ("original", prices.original, 100.0),
        ("mean", prices.mean, float("nan")),
    ):
        ce = sum(found) / sum(prices.tokens)
        yield {"sae": "", "setting": setting, "ce": ce, "recovered": recovers}
