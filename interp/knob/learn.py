"""Learn the knob, choose its settings, and steer with it: `interp knob learn`.

1. A subspace at every layer asked for, learned in step (see subspace.py); the layer whose subspace
   swaps the answers best on the validation items has the knob.
2. Beside it at that layer: the mean difference, a logistic probe, a random direction, each with the
   same sweep of c on the validation items, the intent left out (see steer.py).
3. With the chosen c: answers on the held-out parts, in the tuned model and, after its own sweep,
   in the model as it comes behind a few demonstrations without an intent.
4. Perplexity over c; and over configurations (model, demonstrations, format) the separation
   |mean(u.h | context) - mean(u.h | prior)| beside PairAcc.

Written to the run:
`learn/curve.parquet`      layer, step, loss
`learn/layers.parquet`     layer, loss, swapped (share of validation rows whose answer is swapped),
    whole_loss, whole_swapped (the same with the whole residual taken over)
`knob/`                    Directions: index direction, layer, context, prior, spread (of u.h in the
    tuned model), context_c, prior_c (the chosen values)
`sweep/<model>.parquet`    see steer.sweep; models tuned and untuned
`steer/<model>.parquet`    direction, part, and evaluate.answer_rows' columns
`steer/scores.parquet`     model, direction, part, and evaluate.scores' columns
`effects/perplexity-<model>.parquet`    model, c, nats
`effects/configurations-<model>.parquet`    model, shots, format, separation, and
    evaluate.scores' columns
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..store import RunWriter
from .adapter import adapter_fingerprint
from .data import DataConfig, open_tuned, some
from .items import Item, Splits
from .prompts import Prompter

if TYPE_CHECKING:
    from ..directions import Directions
    from ..subject import Subject
    from .steer import Knob

STEER_SHOTS = 6
"""Demonstrations in front of the model as it comes, when it is steered."""


@dataclass(frozen=True)
class LearnSettings(DataConfig):
    """How the knob is learned and tested."""

    layers: tuple[int, ...] = ()
    """Layers to learn a subspace at; by default every second one from a third of the depth on."""
    dimensions: int = 1
    """Of the subspace; the knob itself is its first dimension, so steer with 1."""
    learn_items: int = 320
    """Items that the subspace is learned on."""
    knob_lr: float = 1e-2
    """Adam's rate for the subspace."""
    validate: int = 40
    """Validation items: they choose the layer and c."""
    steer_items: int = 60
    """Most items of each held-out part that are steered."""
    text_tokens: int = 1024
    """Tokens of ordinary text to measure the side effects on."""

    def chosen_layers(self, n_layers: int) -> list[int]:
        """The layers to learn at.

        Raises:
            UserError: a layer the model has not.
        """
        if any(not 0 <= layer < n_layers for layer in self.layers):
            raise UserError(f"layers are 0..{n_layers - 1} in {self.model}")
        return sorted(set(self.layers)) or list(range(n_layers // 3, n_layers - 1, 2))

    def learn(self, adapter: str, out: RunWriter) -> dict[str, Any]:
        """Every stage that `out` does not have yet; the metrics."""
        from .subspace import first_tokens_differ

        splits = self.splits(out)
        subject = open_tuned(self, adapter)
        prompter = Prompter(subject.tokenizer, template=self.template)
        told_apart = Splits(
            *([x for x in part if first_tokens_differ(prompter, x)] for part in splits)
        )
        if not told_apart.validation or not told_apart.train:
            raise UserError("no items to learn or to validate on: choose more facts")
        from .stages import effects, find_knob, learn_layers, metrics, steer_model, turn

        layer = learn_layers(self, subject, told_apart, out)
        knobs = find_knob(self, subject, told_apart, layer, out)
        turn(self, subject, told_apart, knobs, "tuned", out)
        steer_model(self, subject, told_apart, knobs, "tuned", out)
        effects(self, subject, told_apart, knobs[0], "tuned", out)
        if adapter != "none":
            subject = open_tuned(self, "none")
            turn(self, subject, told_apart, knobs, "untuned", out)
            steer_model(self, subject, told_apart, knobs, "untuned", out)
            effects(self, subject, told_apart, knobs[0], "untuned", out)
        return metrics(out)


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


def validation(config: LearnSettings, splits: Splits) -> list[Item]:
    """The items that choose settings."""
    return some(splits.validation, config.validate, config.seed)


def knob_prompter(subject: Subject, config: LearnSettings, model: str, splits: Splits) -> Prompter:
    """Prompts without an intent; for the model as it comes, behind a few demonstrations."""
    from .evaluate import demonstrations

    shots = demonstrations(splits.train, STEER_SHOTS, config.seed) if model == "untuned" else []
    return Prompter(subject.tokenizer, "none", shots, config.template)


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
