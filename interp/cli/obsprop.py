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


def _found(made: Run, json: bool) -> None:
    """The paths, and the feature against the trained probes."""
    report(made, json)
    if json:
        return
    import pandas as pd

    paths = pd.read_parquet(made.path / "paths" / "paths.parquet")
    figures = [name for name in ("auc", "r2") if name in paths]
    tokens = paths["tokens"].map(lambda row: " > ".join(map(repr, row)))
    shown = paths[["path", "effect", "error", "site", "read", *figures]]
    print_rows(shown.assign(tokens=tokens))
    methods = pd.read_parquet(made.path / "scores" / "methods.parquet")
    print_table(["method", "labelled", *figures], _methods(methods, figures))
    if "r2" in figures:
        from ..obsprop.evaluate import within_templates

        examples = pd.read_parquet(made.path / "scores" / "examples.parquet")
        print(f"ObsProp's r2 within a template: {within_templates(examples):.3f}")


def _methods(methods: object, figures: list[str]) -> list[list[str]]:
    rows = methods.to_dict("records")  # type: ignore[attr-defined]
    return [
        [row["method"], str(row["labelled"])]
        + [f"{row[f]:.3f} ({row[f'{f}_low']:.3f}-{row[f'{f}_high']:.3f})" for f in figures]
        for row in rows
    ]


study_command(obsprop, "run", ObspropConfig, _found)
study_command(obsprop, "couple", CoupleConfig, _pairs)


@command(obsprop, "tasks")
def tasks(json: Json = False) -> None:
    """The observables that come with the workbench."""
    every = [read_task(name) for name in shipped()]
    if json:
        found = [dataclasses.asdict(task) for task in every]
        print_json(
            {
                "study": "obsprop.tasks",
                "run": None,
                "metrics": {"tasks": len(every)},
                "tasks": found,
            }
        )
        return
    print_table(["observable", "about"], [[task.name, task.about] for task in every])


@command(obsprop, "heads")
def heads(
    plus: Annotated[
        tuple[str, ...],
        tyro.conf.arg(help="Words with weight +1, as they are in a sentence: ' she'."),
    ],
    minus: Annotated[tuple[str, ...], tyro.conf.arg(help="Words with weight -1.")] = (),
    model: Annotated[str, tyro.conf.arg(help="A catalog name, hub id or folder.")] = "smollm2-135m",
    limit: Limit = 20,
    json: Json = False,
) -> None:
    """Heads with the longest feature vectors for an observable of one's own; needs no data."""
    from ..model.weights import open_weights
    from ..obsprop.observables import contrast, make_observable
    from ..obsprop.parts import Parts
    from ..obsprop.propagate import head_norms

    words = contrast(plus, minus)
    weights = open_weights(model)
    observable = make_observable("own", words, weights)
    table = head_norms(Parts(weights), observable).head(positive(limit))
    if json:
        found = {"metrics": {"rows": len(table)}, "notes": list(observable.notes)}
        print_json(
            {"study": "obsprop.heads", "run": None, **found, "results": table.to_dict("records")}
        )
        return
    print_table(
        ["head", "norm"], [[row["name"], f"{row['norm']:.4f}"] for row in table.to_dict("records")]
    )


@command(obsprop, "speed")
def speed(
    model: Annotated[str, tyro.conf.arg(help="A catalog name, hub id or folder.")] = "smollm2-135m",
    head: Annotated[str, tyro.conf.arg(help="The head whose feature is scored.")] = "26.2",
    tokens: Annotated[int, tyro.conf.arg(help="Tokens of the default corpus to score.")] = 4096,
    json: Json = False,
) -> None:
    """Scoring a corpus against the bare forward pass up to the feature's layer, measured."""
    from ..obsprop.speed import measure

    found = measure(model, head, tokens)
    if json:
        print_json({"study": "obsprop.speed", "run": None, "metrics": found})
        return
    print_table(["metric", "value"], [[name, f"{value:.4g}"] for name, value in found.items()])
