"""The tables of one observable's run, each from what it needs; `study` says what they hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..model.site import Site
from ..runs.writer import RunWriter
from . import checks, evaluate
from .evaluate import ReadExamples
from .opened import FoundFeature, OpenedTask, scores_of
from .parts import MadeParts
from .paths import show
from .propagate import direct_effects, head_vectors, stream_vectors
from .scoring import stream_scores
from .search import linearisation
from .tasks import Example
from .writers import writers

Tables = dict[str, pd.DataFrame]
Makers = dict[str, Callable[[], pd.DataFrame]]
"""Tables by name, each made when it is asked for: a run that is resumed has some."""


def head_and_mlp_tables(opened: OpenedTask) -> Makers:
    """`heads/heads` and `heads/mlps`."""
    return {"heads/heads": partial(_heads, opened), "heads/mlps": partial(_mlps, opened)}


def _heads(opened: OpenedTask) -> pd.DataFrame:
    weights, observable, clean = opened.weights, opened.observable, opened.pair.clean
    _, reads = stream_vectors(weights, observable, clean, clean.last)
    plain, frozen = (
        head_vectors(weights, m[None]).vectors[0].norm(dim=-1)
        for m in (weights.start(observable), reads)
    )
    one, other = (direct_effects(weights, observable, trace) for trace in opened.pair)
    layers, heads = np.indices(tuple(plain.shape))
    columns = {"norm": plain, "norm_frozen": frozen, "effect": one.heads - other.heads}
    values = {name: x.flatten().tolist() for name, x in columns.items()}
    return pd.DataFrame({"layer": layers.ravel(), "head": heads.ravel(), **values})


def _mlps(opened: OpenedTask) -> pd.DataFrame:
    one, other = (
        direct_effects(opened.weights, opened.observable, trace).mlps for trace in opened.pair
    )
    effect = (one - other).tolist()
    return pd.DataFrame({"layer": range(len(effect)), "effect": effect})


def path_table(
    opened: OpenedTask, features: Sequence[FoundFeature], held_out: ReadExamples, boots: int
) -> pd.DataFrame:
    """`paths/paths`."""
    return pd.DataFrame([_path_row(opened, each, held_out, boots) for each in features])


def _path_row(
    opened: OpenedTask, each: FoundFeature, held_out: ReadExamples, boots: int
) -> dict[str, Any]:
    """A row of `paths/paths`."""
    found, pair = each.found, opened.pair
    predicted, actual = linearisation(opened.weights, opened.observable, pair, found)
    ids = pair.clean.ids[list(found.positions)]
    sign = 1.0 if found.effect >= 0 else -1.0
    row = {
        "path": show(found.path),
        "positions": list(found.positions),
        "tokens": [opened.subject.text(i[None]) for i in ids],
        "effect": found.effect,
        "predicted": predicted,
        "actual": actual,
        "error": abs(predicted - actual) / max(abs(actual), 1e-30),
        "crossed": all(mlp.crossed for mlp in each.feature.mlps),
        "sign": sign,
        "read": found.positions[0] in opened.label_positions,
        "site": str(each.site),
    }
    scores = sign * each.scores(held_out)[None]
    return row | evaluate.summary(scores, held_out, boots, opened.seed)


def baselines(
    opened: OpenedTask,
    site: Site,
    train: ReadExamples,
    held_out: ReadExamples,
    sizes: Sequence[int],
    draws: int,
) -> dict[tuple[str, int], evaluate.Array]:
    """(method, labelled examples) -> held-out scores [draws, examples] of all that ObsProp is
    compared with, at one site: the bare difference of the pair's activations there, the model's own
    observable where it has a meaning, and the trained probes."""
    reads = sorted(opened.label_positions)
    both = [
        Example(trace.ids.tolist(), reads, trace is opened.pair.clean, "pair")
        for trace in opened.pair
    ]
    one, other = opened.read(both, [site], "the pair").activations[site]
    methods = {("pair difference", 2): (held_out.activations[site] @ (one - other))[None]}
    if not opened.task.sources:
        methods["observable", 0] = held_out.observable[None]
    return methods | evaluate.baseline_scores(train, held_out, site, sizes, draws, opened.seed)


def pair_table(
    found: Sequence[Mapping[str, Any]], held_out: ReadExamples, seed: int
) -> pd.DataFrame:
    """`scores/pairs`, a row of null for a pair without a path.

    Args:
        found: what `parts.pair_found` gives of each pair.
    """
    columns = ["prompt", "counterfactual", "path", "site", "effect", "auc", "r2"]
    return pd.DataFrame([_pair_row(row, held_out, seed) for row in found], columns=columns)


def _pair_row(found: Mapping[str, Any], held_out: ReadExamples, seed: int) -> dict[str, Any]:
    if "path" not in found:
        return dict(found)
    scores = scores_of(held_out, Site.parse(found["site"]), found["vector"], found["constant"])
    figures = evaluate.summary(scores[None], held_out, 10, seed)
    return {**found, "auc": figures["auc"], "r2": figures["r2"]}


def example_table(opened: OpenedTask, best: FoundFeature, held_out: ReadExamples) -> pd.DataFrame:
    """`scores/examples`."""
    chosen = opened.split.held_out
    return pd.DataFrame(
        {
            "text": [opened.words(example) for example in chosen],
            "group": [e.group if e.template >= 0 else Path(e.group).name for e in chosen],
            "template": [example.template for example in chosen],
            "positive": held_out.positive,
            "observable": held_out.observable,
            "score": best.scores(held_out),
        }
    )


def token_table(opened: OpenedTask, best: FoundFeature, rows: Sequence[list[int]]) -> pd.DataFrame:
    """`texts/tokens`: every token of some texts, scored by the best feature."""
    subject = opened.subject
    table = [
        (n, at, subject.text(torch.tensor([i])), score)
        for n, row in enumerate(rows)
        for scores in stream_scores(subject, [row], best.directions, special=True)
        for at, (i, score) in enumerate(zip(row, scores[:, 0].tolist(), strict=True))
        if i not in subject.prompting.special
    ]
    return pd.DataFrame(table, columns=["text", "position", "token", "score"])


def use_tables(opened: OpenedTask, best: FoundFeature, made: MadeParts) -> Makers:
    """`scores/pairs`, `checks/ablation`, `checks/steering` and `writers/neurons`, where they have a
    meaning."""
    tables: Makers = {}
    if pairs := made.pairs:
        tables["scores/pairs"] = partial(pair_table, pairs, made.held_out, opened.seed)
    if not opened.task.sources:
        own = (opened, best.directions)
        tables["checks/ablation"] = partial(checks.ablation, *own, made.values("ablation"))
        tables["checks/steering"] = partial(checks.steering, *own, made.values("steering"))
    if best.site.kind == "resid_pre" and best.site.layer:
        tables["writers/neurons"] = partial(writers, opened.weights, best.directions)
    return tables


def facts(opened: OpenedTask, best: FoundFeature) -> dict[str, Any]:
    """What the run's manifest says beside the metrics."""
    task, observable = opened.task, opened.observable
    return {
        "about": task.about, "notes": list(observable.notes),
        "words": task.observable, "pair": list(task.pair),
        "pair_values": [float(observable.value(trace.logits)) for trace in opened.pair],
        "best": show(best.found.path), "site": str(best.site),
    }  # fmt: skip


def save_directions(opened: OpenedTask, features: Sequence[FoundFeature], out: RunWriter) -> None:
    """The features, site by site."""
    for site in dict.fromkeys(each.site for each in features):
        here = [each.feature for each in features if each.site == site]
        opened.directions(here).save_in(out, f"directions/{site}")


def metrics(best: FoundFeature, tables: Tables) -> dict[str, Any]:
    """The run's metrics: the best feature's figures against those of the trained probes."""
    methods = tables["scores/methods"]
    own = methods[methods["method"] == "ObsProp"].iloc[0]
    probes = methods[methods["method"].isin(list(evaluate.PROBES))]
    values: dict[str, Any] = {"path": show(best.found.path), "site": str(best.site)}
    for name in (name for name in ("auc", "r2") if name in methods):
        values[name] = float(own[name])
        most = probes.groupby("labelled")[name].max()
        beaten = most[(most < own[name]).cummin()]  # at that size and all smaller
        values[f"{name} beats every probe with"] = max(beaten.index.tolist(), default=0)
    if "checks/ablation" in tables:
        ablated = tables["checks/ablation"]
        values["gap kept without it"] = float(ablated[~ablated["control"]]["kept"].iloc[0])
        values["gap kept, random"] = float(ablated[ablated["control"]]["kept"].mean())
    return values
