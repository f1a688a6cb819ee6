"""Learn the knob, choose its settings, and steer with it: `interp knob learn`.

1. A subspace at every layer asked for, learned in step (see subspace.py); the layer whose subspace
   swaps the answers best has the knob. Subspaces of more dimensions are compared with it there.
2. Beside it at that layer: the mean difference, a logistic probe, a random direction, each with the
   same sweep of c, the intent left out (see steer.py).
3. With the chosen c: answers on the held-out parts, in the tuned model and, each after a sweep of
   its own, in the model as it comes, with and without demonstrations (which have no intent either).
4. What it costs, what it has to do with PairAcc, and what it is (see effects.py).

One half of the validation facts chooses the layer and judges the ranks, the other chooses c.

Written to the run; `place` is one of PLACES:
`learn/curve.parquet`      rank, layer, step, loss
`learn/layers.parquet`     rank, layer, loss, swapped (share of validation rows whose answer is
    swapped), whole_loss, whole_swapped (the same with the whole residual taken over), rows
`knob/`                    Directions: index direction, layer, context, prior, spread (of u.h in the
    model it was learned in), context_c, prior_c (the chosen values)
`sweep/<place>.parquet`    see steer.sweep
`steer/<place>.parquet`    direction ("none": the intent in the prompt instead), part, and
    evaluate.answer_rows' columns
`steer/scores.parquet`     model (the place), direction, part, and evaluate.scores' columns
and those of effects.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ..errors import UserError
from ..runs.store import RunWriter
from .adapter import adapter_fingerprint
from .data import DataConfig, open_tuned, some
from .evaluate import demonstrations
from .items import Item, Splits
from .prompts import Format, Prompter

if TYPE_CHECKING:
    from ..directions import Directions
    from ..model.subject import Subject
    from .steer import Knob


class Place(NamedTuple):
    """A model and the demonstrations in front of its prompts, where the knob is turned."""

    name: str
    tuned: bool
    shots: int

    def prompter(
        self, subject: Subject, config: DataConfig, train: list[Item], form: Format
    ) -> Prompter:
        shots = demonstrations(train, self.shots, config.seed) if self.shots else []
        return Prompter(subject.tokenizer, form, shots, config.template)


TEXT = 128
"""Tokens in a row of ordinary text."""
PLACES = (
    Place("tuned", True, 0),
    Place("untuned 0-shot", False, 0),
    Place("untuned 6-shot", False, 6),
)


@dataclass(frozen=True)
class LearnSettings(DataConfig):
    """How the knob is learned and tested."""

    layers: tuple[int, ...] = ()
    """Layers to learn a subspace at; by default every third one from a third of the depth on."""
    ranks: tuple[int, ...] = (2,)
    """Other dimensions of a subspace, compared with the knob's one at its layer."""
    learn_items: int = 240
    """Items that the subspace is learned on."""
    knob_lr: float = 1e-2
    """Adam's rate for the subspace."""
    validate: int = 40
    """Most validation items that choose the layer, and most others that choose c."""
    steer_items: int = 45
    """Most items of each held-out part that are steered."""
    separate_items: int = 30
    """Held-out items for the separation beside PairAcc."""
    text_tokens: int = 1024
    """Tokens of ordinary text to measure the side effects on."""
    sae: str = ""
    """A folder with an SAE of the knob's site, or release:sae_id, to split the knob by."""

    def check(self) -> None:
        super().check()
        from ..model.weights import open_weights

        self.chosen_layers(open_weights(self.model).spec.n_layers)
        counts = ("learn_items", "validate", "steer_items", "separate_items")
        if min(getattr(self, name) for name in counts) < 1 or min(self.ranks, default=1) < 1:
            raise UserError(f"ranks and {', '.join(counts)} are 1 or more")
        if self.text_tokens < TEXT:
            raise UserError(f"--text-tokens is {TEXT} or more: one row of text")

    def chosen_layers(self, n_layers: int) -> list[int]:
        """The layers to learn at.

        Raises:
            UserError: a layer the model has not.
        """
        if any(not 0 <= layer < n_layers for layer in self.layers):
            raise UserError(f"layers are 0..{n_layers - 1} in {self.model}")
        return sorted(set(self.layers)) or list(range(n_layers // 3 + 1, n_layers - 1, 3))

    def learn(self, adapter: str, out: RunWriter) -> dict[str, Any]:
        """Every stage that `out` does not have yet; the metrics."""
        from . import effects, stages
        from .subspace import first_tokens_differ

        splits = self.splits(out)
        subject = open_tuned(self, adapter)
        prompter = Prompter(subject.tokenizer, template=self.template)
        told_apart = Splits(
            *([x for x in part if first_tokens_differ(prompter, x)] for part in splits)
        )
        if not told_apart.validation or not told_apart.train:
            raise UserError("no items to learn or to validate on: choose more facts")
        layer = stages.learn_layers(self, subject, told_apart, out)
        own = adapter != "none"
        knobs = stages.find_knob(self, subject, told_apart, layer, PLACES[0 if own else 1], out)
        stages.compare_ranks(self, subject, told_apart, layer, out)
        effects.decode(self, subject, told_apart, out)
        facts = len({item.key for item in told_apart.train})
        for tuned in (True, False) if own else (False,):
            subject = subject if tuned == own else open_tuned(self, "none")
            for place in PLACES:
                if place.tuned == tuned and place.shots <= facts:
                    stages.turn(self, subject, told_apart, knobs, place, out)
                    stages.steer_model(self, subject, told_apart, knobs, place, out)
            effects.price(self, subject, knobs[0], tuned, out)
            effects.configurations(self, subject, told_apart, knobs[0], tuned, out)
        return stages.metrics(out)


@dataclass(frozen=True)
class LearnConfig(LearnSettings):
    """Learn the direction that decides between context and prior knowledge, and steer with it."""

    STUDY: ClassVar[str] = "knob.learn"

    adapter: str = "shipped"
    """The adapter's folder; "shipped", or "none" for the model as it comes."""

    def fingerprints(self) -> dict[str, str]:
        return {**super().fingerprints(), "adapter": adapter_fingerprint(self.adapter)}

    def run(self, out: RunWriter) -> dict[str, Any]:
        return self.learn(self.adapter, out)


def validation(config: LearnSettings, splits: Splits) -> tuple[list[Item], list[Item]]:
    """The items that choose the layer, and those that choose c: of different facts, unless there
    is only one."""
    import random

    keys = sorted({item.key for item in splits.validation})
    if len(keys) == 1:
        items = some(splits.validation, config.validate, config.seed)
        return items, items
    first = set(random.Random(f"{config.seed}/halves").sample(keys, len(keys) // 2))
    halves = (
        [x for x in splits.validation if (x.key in first) == chosen] for chosen in (True, False)
    )
    for_layer, for_c = (some(half, config.validate, config.seed) for half in halves)
    return for_layer, for_c


def saved(
    knobs: Sequence[Knob], values: dict[str, tuple[float, float]], about: dict[str, Any]
) -> Directions:
    """The knobs as Directions, with the values of c chosen for them."""
    import pandas as pd
    import torch

    from ..directions import Directions

    index = pd.DataFrame(
        {
            "direction": knob.name,
            "layer": knob.site.layer,
            "context": knob.context,
            "prior": knob.prior,
            "spread": knob.spread,
            "context_c": values[knob.name][0],
            "prior_c": values[knob.name][1],
        }
        for knob in knobs
    )
    return Directions(knobs[0].site, torch.stack([k.vector for k in knobs]), index, about)


def knobs_of(directions: Directions) -> list[Knob]:
    """The knobs back from what `saved` made."""
    from .steer import Knob

    return [
        Knob(
            str(row["direction"]), directions.site, vector,
            float(row["context"]), float(row["prior"]), float(row["spread"]),
        )
        for row, vector in zip(directions.index.to_dict("records"), directions.vectors, strict=True)
    ]  # fmt: skip
