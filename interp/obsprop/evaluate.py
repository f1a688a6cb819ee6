"""ObsProp's score against probes that learn from labels, all on one split and at one site.

Every method reads the same activations (those the feature reads, behind its norm, averaged over
the positions an example is read at) of the same held-out examples. The baselines are a logistic
probe, least squares (on the model's own observable where there is one, else on the label) and the
mean difference, each at several numbers of labelled examples, half of each class, with many draws
of them; and the bare difference of the pair's activations at that site, which ObsProp must beat to
be worth its theory. Two figures: the AUC for the label, and r^2 (squared correlation) with the
observable.

Intervals come from a bootstrap over the held-out groups (all templates of one word are one group)
and over the draws.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression

from interp.probes.direction import LeastSquares, MeanDifference

from ..model.site import Site
from ..model.subject import Subject
from ..progress import progress
from ..runs.intervals import group_weights, middle
from ..text.stream import passes
from .scoring import feature_reading
from .tasks import Example

Array = npt.NDArray[np.float64]
UNIT = "held-out group"
"""What the bootstrap draws: a word with all its templates, or a file."""
PROBES: dict[str, Any] = {
    "logistic": LogisticRegression(max_iter=1000),
    "least squares": LeastSquares(),
    "mean difference": MeanDifference(),
}
"""What is trained on labelled examples, over and over."""
log = logging.getLogger("interp")


class ReadExamples(NamedTuple):
    """What a set of examples looks like to every method."""

    activations: dict[Site, Array]
    """[examples, d] at each site, behind the norm, averaged over an example's positions."""
    positive: npt.NDArray[np.bool_]
    observable: Array
    """The model's own at the last position; NaN where it means nothing."""
    groups: npt.NDArray[np.int64]


class ReadBatch(NamedTuple):
    """Some of them."""

    activations: dict[Site, Array]
    observable: Array


def batches(chosen: Sequence[Example], size: int = 16) -> list[list[int]]:
    """The numbers of the examples that are run together, the shortest first."""
    order = sorted(range(len(chosen)), key=lambda i: len(chosen[i].ids))
    return [order[start : start + size] for start in range(0, len(order), size)]


def read_batch(
    subject: Subject,
    chosen: Sequence[Example],
    sites: Sequence[Site],
    observable: Callable[[torch.Tensor], torch.Tensor] | None,
) -> ReadBatch:
    """Run a batch: activations at some sites, and the observable where it is asked for.

    Without an observable the pass stops after the last of the sites.

    Args:
        observable: activations at `final_norm_in` -> its values, as `propagate.readout` makes it.
    """
    values, end = np.full(len(chosen), np.nan), Site("final_norm_in")
    readings = {site: feature_reading(site, subject.spec) for site in sites}
    wanted = [*sites, *([end] if observable else [])]
    rows = [example.ids for example in chosen]
    ((source, activations),) = passes(subject, rows, wanted, len(rows), special=True)
    row = source.row.cpu()
    tokens = [(row == i).nonzero()[:, 0] for i in range(len(chosen))]
    kept = {}
    for site in sites:
        own = (activations[site][at[each.reads]] for at, each in zip(tokens, chosen, strict=True))
        means = [readings[site].prepared(x).mean(0).double() for x in own]
        kept[site] = torch.stack(means).cpu().numpy()
    if observable:
        ends = activations[end][torch.stack([at[-1] for at in tokens])].cpu()
        values[:] = [float(observable(x)) for x in ends]
    return ReadBatch(kept, values)


def joined(chosen: Sequence[Example], read: Sequence[ReadBatch]) -> ReadExamples:
    """What was read of their `batches`."""
    place = np.argsort([i for batch in batches(chosen) for i in batch])
    return ReadExamples(
        {
            site: np.concatenate([batch.activations[site] for batch in read])[place]
            for site in read[0].activations
        },
        np.array([example.positive for example in chosen]),
        np.concatenate([batch.observable for batch in read])[place],
        pd.factorize(np.array([example.group for example in chosen], dtype=object))[0],
    )


def read_examples(
    subject: Subject,
    chosen: Sequence[Example],
    sites: Sequence[Site],
    observable: Callable[[torch.Tensor], torch.Tensor] | None,
    label: str,
) -> ReadExamples:
    """Run the examples once, batch by batch, as `read_batch`."""
    read = []
    with progress(label, len(chosen), "examples") as advance:
        for numbers in batches(chosen):
            some = [chosen[i] for i in numbers]
            read.append(read_batch(subject, some, sites, observable))
            advance(len(numbers))
    return joined(chosen, read)


def baseline_scores(
    train: ReadExamples,
    held_out: ReadExamples,
    site: Site,
    sizes: Sequence[int],
    draws: int,
    seed: int,
) -> dict[tuple[str, int], Array]:
    """(method, number of labelled examples) -> held-out scores [draws, examples].

    Sizes beyond the training examples are left out, with a warning.
    """
    X, y = train.activations[site], train.positive
    target = np.where(y, 1.0, -1.0) if np.isnan(train.observable).any() else train.observable
    rng = np.random.default_rng(seed)
    out: dict[tuple[str, int], list[Array]] = {}
    sides = [np.flatnonzero(y), np.flatnonzero(~y)]
    most = 2 * min(map(len, sides))
    usable = [size for size in sizes if size <= most]
    if len(usable) < len(sizes):
        log.warning("there are %d labelled examples: probes with more are left out", most)
    for size, _ in itertools.product(usable, range(draws)):
        rows = np.concatenate([rng.choice(side, size // 2, replace=False) for side in sides])
        for name, probe in PROBES.items():
            fitted = probe.fit(X[rows], target[rows] if name == "least squares" else y[rows])
            score = getattr(fitted, "decision_function", None) or fitted.predict
            out.setdefault((name, size), []).append(score(held_out.activations[site]))
    return {key: np.stack(rows) for key, rows in out.items()}


def auc(scores: Array, positive: npt.NDArray[np.bool_], weights: Array) -> Array:
    """Area under the ROC curve under each row of weights [boots, examples]: the weighted share of
    (positive, negative) pairs in the right order, ties counting half."""
    high, low = scores[positive], scores[~positive]
    wins = np.sign(high[:, None] - low[None]) / 2 + 0.5
    on, off = weights[:, positive], weights[:, ~positive]
    total = on.sum(1) * off.sum(1)
    with np.errstate(invalid="ignore"):
        area: Array = np.einsum("bi,ij,bj->b", on, wins, off, optimize=True) / total
    return area


def r2(scores: Array, values: Array, weights: Array) -> Array:
    """Squared correlation under each row of weights."""
    w = weights / weights.sum(1, keepdims=True)
    a, b = scores - (w @ scores)[:, None], values - (w @ values)[:, None]
    cov, var = (w * a * b).sum(1), (w * a * a).sum(1) * (w * b * b).sum(1)
    squared: Array = cov**2 / np.maximum(var, 1e-300)
    return squared


def within_templates(table: pd.DataFrame) -> float:
    """r^2 of the score with the observable when each template's means are taken out of both (a
    feature that is read at the word cannot see what its template adds after it).

    Args:
        table: `scores/examples`.
    """
    means = table.groupby("template")[["score", "observable"]].transform("mean")
    left = table[["score", "observable"]] - means
    return float(left["score"].corr(left["observable"]) ** 2)


def summary(scores: Array, held_out: ReadExamples, boots: int, seed: int) -> dict[str, Any]:
    """AUC and r^2 of a method's held-out scores [draws, examples]: the mean over draws, the middle
    95 % of a bootstrap over groups and draws (`_low`, `_high`), and the unit that is drawn."""
    drawn = group_weights(int(held_out.groups.max()) + 1, boots, seed)[:, held_out.groups]
    weights = np.concatenate([np.ones((1, len(held_out.groups))), drawn])
    pick = np.random.default_rng(seed).integers(len(scores), size=boots)
    out: dict[str, Any] = {}
    every_figure = {"auc": [auc(row, held_out.positive, weights) for row in scores]}
    if not np.isnan(held_out.observable).any():
        every_figure["r2"] = [r2(row, held_out.observable, weights) for row in scores]
    for name, rows in every_figure.items():
        every = np.stack(rows)  # [draws, 1 + boots]
        low, high = middle(every[pick, 1 + np.arange(boots)])
        out |= {name: float(every[:, 0].mean()), f"{name}_low": low, f"{name}_high": high}
    return out | {"unit": UNIT}
