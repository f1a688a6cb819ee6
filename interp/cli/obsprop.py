"""`interp obsprop …`"""

from __future__ import annotations

import dataclasses
from typing import Annotated

import tyro
from tyro.extras import SubcommandApp

from ..obsprop.couple import CoupleConfig
from ..obsprop.study import ObspropConfig
from ..obsprop.tasks import read_task, shipped
from ..runs.store import Run
from .common import (
    Json,
    Limit,
    command,
    positive,
    print_json,
    print_rows,
    print_table,
    report,
    study_command,
    with_table,
)

obsprop = SubcommandApp()
_pairs = with_table(
    "pairs/pairs",
    ["a", "b", "head", "coupling", "prompts_slope", "corpus_slope", "cosine"],
)


def _paths(run: Run, json: bool) -> None:
    """The paths, and the feature against the trained probes."""
    report(run, json)
    if json:
        return
    paths = run.table("paths/paths")
    figures = [name for name in ("auc", "r2") if name in paths]
    tokens = paths["tokens"].map(lambda row: " > ".join(map(repr, row)))
    shown = paths[["path", "effect", "error", "site", "read", *figures]]
    print_rows(shown.assign(tokens=tokens))
    rows = [
        [row["method"], str(row["labelled"])]
        + [f"{row[f]:.3f} ({row[f'{f}_low']:.3f}-{row[f'{f}_high']:.3f})" for f in figures]
        for row in run.table("scores/methods").to_dict("records")
    ]
    print_table(["method", "labelled", *figures], rows)
    if "r2" in figures:
        from ..obsprop.evaluate import within_templates

        r2 = within_templates(run.table("scores/examples"))
        print(f"ObsProp's r2 within a template: {r2:.3f}")


study_command(obsprop, "run", ObspropConfig, _paths)
study_command(obsprop, "couple", CoupleConfig, _pairs)


@command(obsprop, "tasks")
def list_tasks(json: Json = False) -> None:
    """The observables that come with the workbench."""
    every = [read_task(name) for name in shipped()]
    if json:
        tasks = [dataclasses.asdict(task) for task in every]
        metrics = {"tasks": len(every)}
        print_json({"study": "obsprop.tasks", "run": None, "metrics": metrics, "tasks": tasks})
        return
    print_table(["observable", "about"], [[task.name, task.about] for task in every])


@command(obsprop, "heads")
def heads(
    plus: Annotated[
        tuple[str, ...],
        tyro.conf.arg(help="Words with weight +1, as in a sentence, with the space: ' she'."),
    ],
    minus: Annotated[tuple[str, ...], tyro.conf.arg(help="Words with weight -1.")] = (),
    model: Annotated[str, tyro.conf.arg(help="A catalog name, hub id or folder.")] = "smollm2-135m",
    limit: Limit = 20,
    json: Json = False,
) -> None:
    """The heads with the longest feature vectors for your own observable; no text is run."""
    from ..model.weights import open_weights
    from ..obsprop.model_weights import StackedWeights
    from ..obsprop.observables import contrast, make_observable
    from ..obsprop.propagate import head_norms

    words = contrast(plus, minus)
    weights = open_weights(model)
    observable = make_observable("own", words, weights)
    rows = head_norms(StackedWeights(weights), observable).head(positive(limit)).to_dict("records")
    if json:
        metrics, notes = {"rows": len(rows)}, list(observable.notes)
        made = {"study": "obsprop.heads", "run": None, "metrics": metrics, "notes": notes}
        print_json({**made, "results": rows})
        return
    print_table(["head", "norm"], [[row["name"], f"{row['norm']:.4f}"] for row in rows])


@command(obsprop, "speed")
def speed(
    model: Annotated[str, tyro.conf.arg(help="A catalog name, hub id or folder.")] = "smollm2-135m",
    head: Annotated[str, tyro.conf.arg(help="The head whose feature is scored.")] = "26.2",
    tokens: Annotated[
        int, tyro.conf.arg(help="How many tokens of the default corpus to score.")
    ] = 4096,
    json: Json = False,
) -> None:
    """How long scoring a corpus takes against the bare forward pass up to the feature's layer."""
    from ..obsprop.speed import measure

    metrics = measure(model, head, tokens)
    if json:
        print_json({"study": "obsprop.speed", "run": None, "metrics": metrics})
        return
    print_table(["metric", "value"], [[name, f"{value:.4g}"] for name, value in metrics.items()])
