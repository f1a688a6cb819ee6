"""`interp obsprop …`"""

from __future__ import annotations

import dataclasses
from typing import Annotated

import tyro
from tyro.extras import SubcommandApp

from ..obsprop.couple import CoupleConfig
from ..obsprop.study import ObspropConfig
from ..obsprop.task_files import KEYS, read_task, shipped
from ..obsprop.task_files import schema as task_schema
from ..runs.store import Run
from . import common
from .common import Json, Limit, command, positive, study_command

obsprop = SubcommandApp()
Schema = Annotated[common.Flag, tyro.conf.arg(help="Print what a file of your own holds.")]


def _paths(run: Run) -> None:
    """The paths, and the feature against the trained probes."""
    paths = run.table("paths/paths")
    tokens = paths["tokens"].map(lambda row: " > ".join(map(repr, row)))
    shown = paths.filter(["path", "effect", "error", "site", "read", "auc", "r2"])
    common.print_rows(shown.assign(tokens=tokens))
    common.print_rows(run.table("scores/methods"))
    if "r2" in paths:
        from ..obsprop.evaluate import within_templates

        r2 = within_templates(run.table("scores/examples"))
        common.say(f"ObsProp's r2 within a template: {r2:.3f}")


_PAIRS = "a b head coupling prompts_slope corpus_slope cosine"
study_command(obsprop, ObspropConfig, _paths)
study_command(obsprop, CoupleConfig, common.with_table("pairs/pairs", _PAIRS))


@command(obsprop, "tasks")
def list_tasks(schema: Schema = False, json: Json = False) -> None:
    """The observables that come with the workbench, and the form of your own."""
    if schema:
        keys = [{"key": n, "about": k.about, "example": k.example} for n, k in KEYS.items()]
        if not common.answered(json, "obsprop.tasks", {"keys": len(keys)}, schema=keys):
            common.say(*task_schema().rstrip("\n").split("\n"))
        return
    tasks = [dataclasses.asdict(read_task(name)) for name in shipped()]
    if not common.answered(json, "obsprop.tasks", {"tasks": len(tasks)}, tasks=tasks):
        common.print_table(["observable", "about"], [[t["name"], t["about"]] for t in tasks])


@command(obsprop, "heads")
def heads(
    plus: tuple[str, ...],
    minus: tuple[str, ...] = (),
    model: str = "smollm2-135m",
    limit: Limit = 20,
    json: Json = False,
) -> None:
    """The heads with the longest feature vectors for your own observable; no text is run.

    Args:
        plus: Words with weight +1, as in a sentence, with the space: ' she'.
        minus: Words with weight -1.
        model: A catalog name, hub id or folder.
    """
    from ..model.weights import open_weights
    from ..obsprop.model_weights import StackedWeights
    from ..obsprop.observables import contrast, make_observable
    from ..obsprop.propagate import head_norms

    words = contrast(plus, minus)
    weights = open_weights(model)
    observable = make_observable("own", words, weights)
    rows = head_norms(StackedWeights(weights), observable).head(positive(limit))
    notes = list(observable.notes)
    common.print_frame("obsprop.heads", rows, json, "name norm", notes=notes)


@command(obsprop, "speed")
def speed(
    model: str = "smollm2-135m", head: str = "26.2", tokens: int = 4096, json: Json = False
) -> None:
    """How long scoring a corpus takes against the bare forward pass up to the feature's layer.

    Args:
        model: A catalog name, hub id or folder.
        head: The head whose feature is scored.
        tokens: How many tokens of the default corpus to score.
    """
    from ..obsprop.speed import measure

    metrics = measure(model, head, tokens)
    if not common.answered(json, "obsprop.speed", metrics):
        common.print_metrics(metrics, ".4g")
