"""`interp neurons …`"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.extras import SubcommandApp

from ..errors import UserError
from ..model.catalog import DEFAULT_MODEL, resolve
from ..neurons.atlas import AtlasConfig
from ..neurons.clamp import ClampConfig
from ..neurons.effects import EffectsConfig
from ..neurons.tars import TarsConfig
from ..runs.store import Run, Store
from ..runs.study import run_or_load
from .common import (
    Atlas,
    Fresh,
    Json,
    Limit,
    Runs,
    command,
    positive,
    print_json,
    print_table,
    report,
    report_rows,
    study_command,
    with_table,
)

neurons = SubcommandApp()


@dataclasses.dataclass(frozen=True)
class OneOfSeveral(AtlasConfig):
    """Decode every MLP neuron of a model through its LM head."""

    # `--model` of the command takes several, and each makes one of these
    model: Annotated[str, tyro.conf.Suppress] = DEFAULT_MODEL


@command(neurons, "atlas")
def atlas(
    config: tyro.conf.OmitArgPrefixes[OneOfSeveral],
    model: Annotated[
        tuple[str, ...],
        tyro.conf.arg(help="Catalog names, hub ids, folders or .gguf files: an atlas of each."),
    ] = (DEFAULT_MODEL,),
    out: Annotated[
        Path | None,
        tyro.conf.arg(help="The run's own folder; with several models, a folder in it for each."),
    ] = None,
    runs: Runs = None,
    fresh: Fresh = False,
    json: Json = False,
) -> None:
    """Decode every MLP neuron of a model (or several) through its LM head.

    The same command resumes an interrupted atlas.
    """
    if not model:
        raise UserError("--model needs at least one model")
    for name in model:
        resolve(name)  # all of them before the first hour of work
    made = []
    for name in model:
        own = out / re.sub(r"[^\w.-]+", "-", name).strip("-") if out and len(model) > 1 else out
        run = run_or_load(dataclasses.replace(config, model=name), Store(runs), own, fresh)
        made.append(run)
        if len(model) == 1 or not json:
            report(run, json)
    if json and len(model) > 1:
        runs_made = [{"run": str(run.path), "metrics": run.metrics} for run in made]
        print_json({"study": AtlasConfig.STUDY, "run": None, "metrics": {}, "runs": runs_made})


@command(neurons, "search")
def search(
    word: tyro.conf.Positional[str],
    atlas: Atlas = None,
    exact: Annotated[
        bool,
        tyro.conf.FlagCreatePairsOff,
        tyro.conf.arg(help="Match this token's text alone, not its word family."),
    ] = False,
    limit: Limit = 20,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Neurons that decode to a word, most specialised first."""
    from ..neurons import search as questions

    run = questions.open_atlas(atlas, Store(runs))
    rows = questions.find(run, word, exact, positive(limit))
    report_rows(run, "neurons.search", rows, json, ["score", "rank", "word_z", "lead"])


@command(neurons, "show")
def show(
    neuron: tyro.conf.Positional[str],
    atlas: Atlas = None,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """One neuron vector, such as 29.gate.808: its tokens and statistics, both sides."""
    from ..neurons import search as questions

    run = questions.open_atlas(atlas, Store(runs))
    rows = questions.show(run, neuron)
    report_rows(run, "neurons.show", rows, json, ["z", "margin", "kurtosis", "max_prob", "norm"])


@command(neurons, "top")
def top(
    atlas: Atlas = None,
    limit: Limit = 20,
    layer: Annotated[int | None, tyro.conf.arg(help="Only this layer.")] = None,
    kind: Annotated[
        Literal["up", "gate", "down"] | None, tyro.conf.arg(help="Only this kind.")
    ] = None,
    words_only: Annotated[
        bool,
        tyro.conf.FlagCreatePairsOff,
        tyro.conf.arg(help="Leave out punctuation and fragments under three letters."),
    ] = False,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """The most specialised neurons of an atlas."""
    from ..neurons import search as questions

    run = questions.open_atlas(atlas, Store(runs))
    rows = questions.top(run, positive(limit), layer, kind, words_only)
    report_rows(run, "neurons.top", rows, json, ["score", "z", "margin", "kurtosis"])


def _curve(run: Run, json: bool) -> None:
    """Prints the word's probability and the text at every value."""
    if json:
        report(run, json)
        return
    print(f"{run.config['neuron']} and '{run.manifest['word']}' ({run.path})")
    rows = run.table("curve/values")
    values = rows["value"].map("{:g}".format).where(rows["value"].notna(), "unclamped")
    cells = zip(values, rows["probability"].map("{:.3g}".format), rows["text"], strict=True)
    print_table(["value", "probability", "text"], [list(row) for row in cells])


_beside_random = with_table(
    "effects/neurons",
    ["word", "name", "score", "gain", "value", "control_mean", "control_max", "beats"],
)
_removed = with_table(
    "tars/effects",
    [
        *("concept", "edits", "neurons", "probability", "logprob", "neighbour_logprob"),
        *("kl_median", "kl_mean"),
    ],
)
study_command(neurons, "clamp", ClampConfig, _curve)
study_command(neurons, "effects", EffectsConfig, _beside_random)
study_command(neurons, "tars", TarsConfig, _removed)


@command(neurons, "apply")
def apply(
    edit: Annotated[
        Path,
        tyro.conf.Positional,
        tyro.conf.arg(help="A weight edit (RUN/edits/WORD.safetensors)."),
    ],
    out: Annotated[Path, tyro.conf.arg(help="The edited copy's folder.", metavar="DIR")],
    model: Annotated[str, tyro.conf.arg(help="The model it was made for.")] = DEFAULT_MODEL,
    first: Annotated[
        int | None, tyro.conf.arg(help="Turn only this many neurons, the first of the edit.")
    ] = None,
    undo: Annotated[
        bool,
        tyro.conf.FlagCreatePairsOff,
        tyro.conf.arg(help="Take the edit back out of an edited model."),
    ] = False,
    json: Json = False,
) -> None:
    """Write a copy of a model with a weight edit applied, or taken back."""
    from ..neurons.weight_edits import WeightEdit, apply_to_folder

    turned = WeightEdit.load(edit)
    if first is not None and positive(first, "--first") > len(turned):
        raise UserError(f"--first {first}: the edit has only {len(turned)} neurons")
    turned = turned.first(first or len(turned))
    apply_to_folder(turned.inverse if undo else turned, resolve(model), out)
    if json:
        facts = {"folder": str(out), "metrics": {"neurons": len(turned)}}
        print_json({"study": "neurons.apply", "run": None, **facts})
        return
    print(f"{out}: {len(turned)} neurons {'turned back' if undo else 'turned'}")


@command(neurons, "agree")
def agree(
    run_a: tyro.conf.Positional[Path], run_b: tyro.conf.Positional[Path], json: Json = False
) -> None:
    """How often two models' neurons have the same first token (two atlas folders)."""
    from ..neurons.agree import agreement, summary
    from ..neurons.search import open_atlas

    a, b = open_atlas(run_a), open_atlas(run_b)
    means = summary(agreement(a, b))
    if json:
        both = {"run": str(a.path), "other": str(b.path)}
        print_json({"study": "neurons.agree", **both, "metrics": means})
        return
    print_table(["metric", "value"], [[name, f"{mean:.4f}"] for name, mean in means.items()])
