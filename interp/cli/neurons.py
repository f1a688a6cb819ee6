"""`interp neurons …`"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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
from . import common
from .common import (
    ALONE,
    Atlas,
    Flag,
    Fresh,
    Json,
    Limit,
    Parted,
    Runs,
    command,
    positive,
    study_command,
)

if TYPE_CHECKING:
    from ..runs.query import Record

neurons = SubcommandApp()
By = Annotated[
    Literal["score", "coherence"],
    tyro.conf.arg(help="Rank by the word's score, or by how much the tokens belong together."),
]


KindName = Literal["up", "gate", "down"]


@dataclasses.dataclass(frozen=True)
class OneOfSeveral(AtlasConfig):
    """Decode every MLP neuron of a model through its LM head."""

    # `--model` of the command takes several, and each makes one of these
    model: Annotated[str, tyro.conf.Suppress] = DEFAULT_MODEL


@command(neurons, "atlas")
def atlas(
    config: tyro.conf.OmitArgPrefixes[OneOfSeveral],
    model: tuple[str, ...] = (DEFAULT_MODEL,),
    out: Path | None = None,
    runs: Runs = None,
    fresh: Fresh = False,
    json: Json = False,
) -> None:
    """Decode every MLP neuron of a model (or several) through its LM head.

    The same command resumes an interrupted atlas.

    Args:
        model: Catalog names, hub ids, folders or .gguf files: an atlas of each.
        out: The run's own folder; with several models, a folder in it for each.
    """
    if not model:
        raise UserError("--model needs at least one model")
    for name in model:
        resolve(name)  # all of them before the first hour of work
    made = []
    for name in model:
        own = out / re.sub(r"[^\w.-]+", "-", name).strip("-") if out and len(model) > 1 else out
        run = run_or_load(dataclasses.replace(config, model=name), Store(runs), own, fresh)
        made.append({"run": str(run.path), "metrics": run.metrics})
        if len(model) == 1 or not json:
            common.report(run, json)
    if len(model) > 1:
        common.answered(json, AtlasConfig.STUDY, {}, runs=made)


@command(neurons, "search")
def search(
    word: tyro.conf.Positional[str],
    atlas: Atlas = None,
    exact: Flag = False,
    by: By = "score",
    limit: Limit = 20,
    layer: int | None = None,
    kind: KindName | None = None,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Neurons that decode to a word, most specialised first.

    Args:
        exact: Match this token's text alone, not its word family.
        layer: Only this layer.
        kind: Only this kind.
    """
    from ..neurons import search as questions

    run = questions.open_atlas(atlas, Store(runs))
    kinds = (kind,) if kind else ()
    rows = questions.find.records(run, word, exact, positive(limit), by, kinds, layer=layer)
    _print("search", run, rows, f"{_RANKED[by]} rank word_z lead", json)


@command(neurons, "show")
def show(
    neuron: tyro.conf.Positional[str], atlas: Atlas = None, runs: Runs = None, json: Json = False
) -> None:
    """One neuron vector, such as 29.gate.808: its tokens and statistics, both sides."""
    from ..neurons import search as questions

    run = questions.open_atlas(atlas, Store(runs))
    columns = f"{_RANKED['score']} z margin coherence coherence_p coherence_q kurtosis norm"
    _print("show", run, questions.show.records(run, neuron), columns, json)


@command(neurons, "top")
def top(
    atlas: Atlas = None,
    limit: Limit = 20,
    layer: int | None = None,
    kind: KindName | None = None,
    words_only: Flag = False,
    by: By = "score",
    runs: Runs = None,
    json: Json = False,
) -> None:
    """The most specialised neurons of an atlas.

    Args:
        layer: Only this layer.
        kind: Only this kind.
        words_only: Leave out punctuation and fragments under three letters.
    """
    from ..neurons import search as questions

    run = questions.open_atlas(atlas, Store(runs))
    rows = questions.top.records(run, positive(limit), layer, kind, words_only, by)
    _print("top", run, rows, f"{_RANKED[by]} z margin kurtosis", json)


@command(neurons, "layers")
def layers(
    atlas: Atlas = None, percentile: float = 99.0, runs: Runs = None, json: Json = False
) -> None:
    """The share of each layer's vectors that spell more than random directions do.

    Args:
        percentile: Of the z of the layer's random directions: what lies above it counts.
    """
    from ..neurons.layers import above_chance
    from ..neurons.search import lens_note, open_atlas

    run = open_atlas(atlas, Store(runs))
    common.print_frame("neurons.layers", above_chance(run, percentile), json, run=run)
    if not json and (note := lens_note(run)):
        common.say(note)


@command(neurons, "index")
def index(atlas: Atlas = None, fresh: Fresh = False, runs: Runs = None, json: Json = False) -> None:
    """Make the search index of an atlas of before; a new atlas has its own.

    With it a search does not read the whole atlas. It is kept beside the models, and the atlas
    stays as it is.
    """
    from ..neurons.kept_index import make_index
    from ..neurons.search import open_atlas

    run = open_atlas(atlas, Store(runs))
    made = make_index(run, fresh)
    size = sum(part["bytes"] for name, part in made.manifest["files"].items() if "index/" in name)
    metrics = {"bytes": size, "index_s": made.metrics.get("index_s", made.manifest["wall_s"])}
    if not common.answered(json, "neurons.index", metrics, made.path):
        own = "the atlas has its own index" if made.path == run.path else str(made.path)
        common.say(f"{own}: {size / 2**20:.1f} MiB")


_RANKED = {"score": "score p q", "coherence": "coherence coherence_p coherence_q score"}
"""A ranking's columns, before its details."""


def _print(command: str, atlas: Run, rows: list[Record], columns: str, json: bool) -> None:
    """Rows of an atlas, with those of the columns that it has, and what p and q are."""
    from ..neurons.search import chance_note, lens_note

    common.print_records(f"neurons.{command}", rows, json, f"name side {columns} tokens", atlas)
    if not json:
        note = chance_note(atlas, "coherence_p" in columns)
        common.say(*filter(None, [lens_note(atlas), note]))


def _curve(run: Run) -> None:
    """The word's probability at every value, and the text after the first prompt."""
    means, rows, prompts = run.table("curve/means"), run.table("curve/values"), run.config["prompt"]
    texts = rows[rows["prompt"] == prompts[0]]["text"].to_list()
    values = means["value"].map("{:g}".format).where(means["value"].notna(), "unclamped")
    interval = "probability_low probability_high n unit" if len(prompts) > 1 else ""
    common.say(f"{run.config['neuron']} and '{run.manifest['word']}'")
    shown = means.assign(value=values, text=texts)
    common.print_rows(shown, f"value probability {interval} text")
    if not interval:
        common.say("One prompt has no interval: give --prompt several for a mean with one.")


_EFFECTS = "word name score gain value control_mean control_max beats"
_REMOVED = (
    "concept edits neurons probability probability_low probability_high prompts unit "
    "neighbour_logprob kl_median kl_mean kl_mean_low kl_mean_high documents kl_unit"
)
_OVER_CONCEPTS = (
    "edits neurons probability probability_low probability_high kl_mean kl_mean_low kl_mean_high "
    "concepts unit"
)
study_command(neurons, ClampConfig, _curve)
study_command(neurons, EffectsConfig, common.with_table("effects/neurons", _EFFECTS))
study_command(
    neurons,
    TarsConfig,
    common.with_table("tars/effects", _REMOVED),
    common.with_table("tars/means", _OVER_CONCEPTS),
)


@command(neurons, "apply")
def apply(
    edit: tyro.conf.Positional[Path],
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")],
    model: str = DEFAULT_MODEL,
    first: int | None = None,
    undo: Flag = False,
    json: Json = False,
) -> None:
    """Write a copy of a model with a weight edit applied, or taken back.

    Args:
        edit: A weight edit (RUN/edits/WORD.safetensors).
        out: The edited copy's folder.
        model: The model it was made for.
        first: Turn only this many neurons, the first of the edit.
        undo: Take the edit back out of an edited model.
    """
    from ..neurons.weight_edits import WeightEdit, apply_to_folder

    turned = WeightEdit.load(edit)
    if first is not None and positive(first, "--first") > len(turned):
        raise UserError(f"--first {first}: the edit has only {len(turned)} neurons")
    turned = turned.first(first or len(turned))
    apply_to_folder(turned.inverse if undo else turned, resolve(model), out)
    if not common.answered(json, "neurons.apply", {"neurons": len(turned)}, folder=str(out)):
        common.say(f"{out}: {len(turned)} neurons {'turned back' if undo else 'turned'}")


@command(neurons, "agree")
def agree(
    run_a: tyro.conf.Positional[Path],
    run_b: tyro.conf.Positional[Path],
    parted: Parted = ALONE,
    json: Json = False,
) -> None:
    """How often two models' neurons have the same first token (two atlas folders)."""
    from ..neurons.agree import summary
    from ..neurons.search import lens_note, open_atlas

    a, b = open_atlas(run_a), open_atlas(run_b)
    table = summary(a, b, parted.spread)
    every, *kinds = table.to_dict("records")
    ends = ("agreement", "agreement_low", "agreement_high", "chance")
    metrics = {name: every[name] for name in ends}
    metrics |= {f"agreement_{row['kind']}": row["agreement"] for row in kinds}
    if not common.answered(json, "neurons.agree", metrics, a.path, other=str(b.path)):
        common.print_rows(table)
        notes = (f"{atlas.path}: {lens_note(atlas)}" for atlas in (a, b) if lens_note(atlas))
        for note in notes:
            common.say(note)
