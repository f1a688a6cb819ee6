"""The stages of learning a knob; each computes its tables unless the run has them (see learn.py).

`work` is what every stage gets: the settings, the model, the items, and the run's folder.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from ..model.site import Site
from ..runs.writer import RunWriter, save_tensors
from .data import PIECE, sample
from .evaluate import answer_rows, scores
from .items import Item, Splits
from .prompts import rows_of
from .settings import STEERED, LearnSettings, Setting

if TYPE_CHECKING:
    import pandas as pd

    from ..directions import Directions
    from ..model.subject import Subject

BASES = "learn/bases.safetensors"


class Work(NamedTuple):
    """What a stage works on."""

    config: LearnSettings
    subject: Subject
    splits: Splits
    """Items whose two answers begin with different tokens."""
    out: RunWriter

    def learn_rows(self) -> list[Item]:
        """The training items that the subspace is learned on."""
        return sample(self.splits.train, self.config.learn_items, self.config.seed)

    def sweep(self, knobs: Directions, setting: Setting) -> pd.DataFrame:
        """`sweep/<setting>`: see steer.sweep."""
        from . import steer

        config, subject = self.config, self.subject
        prompter = config.prompter(subject, "none", self.splits.train, setting.shots)
        items = validation_halves(config, self.splits)[1]
        return self.out.table_once(
            f"sweep/{setting.name}",
            lambda: steer.sweep(subject, prompter, items, knobs, config.batch_size),
        )


def validation_halves(config: LearnSettings, splits: Splits) -> tuple[list[Item], list[Item]]:
    """Validation items that choose the layer, and others that choose c. The halves share no fact,
    unless there is only one."""
    items, keys = splits.validation, sorted({item.key for item in splits.validation})
    first = set(random.Random(f"{config.seed}/halves").sample(keys, len(keys) // 2))
    halves = [x for x in items if x.key in first] or items, [x for x in items if x.key not in first]
    for_layer, for_c = (sample(half, config.validate, config.seed) for half in halves)
    return for_layer, for_c


def learn_layers(work: Work) -> int:
    """`learn/bases`, `learn/curve`, `learn/layers`: one dimension at every layer, and how well each
    swaps answers; return the best layer."""
    out = work.out
    if not out.has("learn/layers.parquet"):
        layers = work.config.chosen_layers(work.subject.spec.n_layers)
        bases, curve, lines = _learned(work, layers, 1)
        with out.part(BASES) as path:
            save_tensors({str(layer): basis for layer, basis in bases.items()}, path)
        out.table("learn/curve", curve)
        out.table("learn/layers", lines)
    table = out.read_table("learn/layers")
    return int(table["layer"].iloc[int(table["loss"].argmin())])


def compare_ranks(work: Work, layer: int) -> None:
    """`learn/ranks`: the knob's dimension and subspaces of more dimensions at its layer."""
    import pandas as pd

    def compare() -> pd.DataFrame:
        one = work.out.read_table("learn/layers")
        tables = [pd.DataFrame(_learned(work, [layer], rank)[2]) for rank in work.config.ranks]
        return pd.concat([one[one["layer"] == layer], *tables])

    work.out.table_once("learn/ranks", compare)


def _learned(
    work: Work, layers: list[int], rank: int
) -> tuple[dict[int, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """Bases by layer, the losses while learning, and how each basis swaps validation answers."""
    from .subspace import IntentPairs, learn_subspaces, swap_loss_and_share

    config, subject = work.config, work.subject
    prompter = config.prompter(subject)
    bases, curve = learn_subspaces(
        subject, prompter, work.learn_rows(), layers, rank, config.knob_lr, config.seed
    )
    held = validation_halves(config, work.splits)[0]
    pairs = [
        IntentPairs.of(subject, prompter, held[start : start + 8])
        for start in range(0, len(held), 8)
    ]
    lines = []
    for layer, basis in bases.items():
        site = Site("resid_post", layer)
        loss, share = swap_loss_and_share(pairs, site, basis)
        whole_loss, whole = swap_loss_and_share(pairs, site, None)
        lines.append(
            {"rank": rank, "layer": layer, "loss": loss, "swapped": share}
            | {"whole_loss": whole_loss, "whole_swapped": whole, "rows": 2 * len(held)}
        )
    return bases, [{"rank": rank, **line} for line in curve], lines


def find_knob(work: Work, layer: int, setting: Setting) -> Directions:
    """`knob/` and `sweep/<setting>`: the learned knob and its baselines, each with its c."""
    from safetensors.torch import load_file

    from ..directions import Directions
    from ..directions.provenance import Provenance
    from . import steer

    config, subject, out = work.config, work.subject, work.out
    if not out.has("knob/directions.json"):
        site, rows = Site("resid_post", layer), rows_of(work.learn_rows())
        h = steer.last_token_states(
            subject, config.prompter(subject), rows, site, config.batch_size
        )
        learned = load_file(out.path / BASES)[str(layer)][0]
        vectors = {"learned": learned, **steer.baselines(h, rows, config.seed)}
        made = Provenance.of("knob.learn", config.stored_weights)
        knobs = replace(steer.knobs_along(site, vectors, h, rows), provenance=made)
        steer.at_best(knobs, work.sweep(knobs, setting)).save_in(out, "knob")
    return Directions.load(out.path / "knob")


def steer_model(work: Work, knobs: Directions, setting: Setting) -> None:
    """`sweep/<setting>`, and `steer/<setting>`: whole answers on the held-out parts, every
    direction at its own c; and, direction "none", with the intent in the prompt instead."""
    import pandas as pd

    from .steer import at_best, steered_answers

    config, subject = work.config, work.subject
    knobs = at_best(knobs, work.sweep(knobs, setting))

    bare, asked = (
        config.prompter(subject, form, work.splits.train, setting.shots)
        for form in ("none", "instruction")
    )
    name = f"steer/{setting.name}"
    items = [
        (part, item)
        for part in ("subjects", "relations")
        for item in sample(getattr(work.splits, part), config.steer_items, config.seed)
    ]

    def answered(some: Sequence[tuple[str, Item]]) -> pd.DataFrame:
        """Items of one piece, part by part."""
        tables = []
        for part in dict.fromkeys(part for part, _ in some):
            of_part = [item for name, item in some if name == part]
            plain = answer_rows(subject, asked, rows_of(of_part), config.batch_size)
            answers = steered_answers(subject, bare, of_part, knobs, config.batch_size)
            tables += [x.assign(part=part) for x in (plain.assign(direction="none"), answers)]
        return pd.concat(tables)

    def steered() -> pd.DataFrame:
        label = f"steer, {setting.name}"
        return work.out.in_pieces(name, items, answered, PIECE // 2, label, "items")

    work.out.table_once(name, steered)


def metrics(out: RunWriter) -> dict[str, Any]:
    """`steer/scores`, and the run's metrics from it and from `effects/configurations-*`."""
    import numpy as np
    import pandas as pd

    lines: list[dict[str, Any]] = []
    for name in sorted(setting.name for setting in STEERED):
        if out.has(f"steer/{name}.parquet"):
            table = out.read_table(f"steer/{name}")
            for (direction, part), rows in table.groupby(["direction", "part"], sort=False):
                labels = {"model": name, "direction": direction, "part": part}
                lines.append({**labels, **scores(rows)})
    out.table("steer/scores", lines)
    knob = out.read_table("knob/index").iloc[0]
    values: dict[str, Any] = {name: float(knob[name]) for name in ("layer", "context_c", "prior_c")}
    for line in lines:
        values[f"pair_acc {line['model']}, {line['direction']}, {line['part']}"] = line["pair_acc"]
    names = sorted(path.stem for path in (out.path / "effects").glob("configurations-*.parquet"))
    several = pd.concat(out.read_table(f"effects/{name}") for name in names)
    if len(several) > 2 and several["pair_acc"].nunique() > 1:
        r = np.corrcoef(several["separation"], several["pair_acc"])[0, 1]
        values |= {"configurations": len(several), "separation correlates": float(r)}
    return values
