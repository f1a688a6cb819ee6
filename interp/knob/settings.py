"""Settings of scoring and of learning, and the ways in which a model is asked.

They stand below the studies and their stages, which all read them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from ..errors import UserError
from .data import AskedData
from .items import Kind
from .prompts import Format

HeldOut = Literal["validation", "subjects", "relations"]
"""Splits that the adapter is not trained on."""
TEXT_ROW = 128
"""Tokens in a row of ordinary text."""


class Setting(NamedTuple):
    """How a model is asked."""

    name: str
    """Column `setting` of the scores; column `model` of the steering scores."""
    tuned: bool
    form: Format = "instruction"
    shots: int = 0
    """Demonstrations in front of each prompt."""
    kind: Kind = "facts"
    """The set it is asked; "facts" stands for the run's own items."""


SCORED = (
    Setting("tuned", True),
    Setting("tuned, float", True, form="float"),
    Setting("tuned, two-hop", True, kind="two-hop"),
    Setting("tuned, arithmetic", True, kind="arithmetic"),
    Setting("0-shot", False),
    Setting("10-shot", False, shots=10),
)
STEERED = (
    Setting("tuned", True),
    Setting("untuned 0-shot", False),
    Setting("untuned 6-shot", False, shots=6),
)


@dataclass(frozen=True)
class ScoreSettings(AskedData):
    """What of a model is scored, with and without its adapter."""

    test: int = 80
    """Maximum items of each part that are scored."""
    parts: tuple[HeldOut, ...] = ("validation", "subjects", "relations")
    """The parts of the data that are scored. Validation items are asked in the setting "tuned"
    only; score them alone to choose a rate or a length."""
    settings: tuple[str, ...] = ()
    """The settings that are scored, such as "tuned" or "10-shot"; by default all."""

    def check(self) -> None:
        super().check()
        names = [setting.name for setting in SCORED]
        if not set(self.settings) <= set(names):
            raise UserError(f"--settings must be among: {'; '.join(names)}")
        if not self.parts:
            raise UserError("--parts needs at least one part")

    def scored_settings(self) -> list[Setting]:
        """The settings asked for; by default all that the parts have items for. Other sets are
        asked only beside the shipped facts."""
        others = self.kind == "facts" and not self.facts
        possible = [x for x in SCORED if x.kind == "facts" or others]
        if self.settings:
            return [x for x in possible if x.name in self.settings]
        return possible if set(self.parts) != {"validation"} else possible[:1]


@dataclass(frozen=True)
class LearnSettings(AskedData):
    """How the knob is learned and tested."""

    layers: tuple[int, ...] = ()
    """Layers to learn a subspace at; by default every third one from a third of the depth on."""
    ranks: tuple[int, ...] = (2,)
    """Dimensions of further subspaces, compared with the knob's one at its layer."""
    learn_items: int = 240
    """Items to learn the subspace on."""
    knob_lr: float = 1e-2
    """Adam's rate for the subspace."""
    validate: int = 40
    """Maximum validation items to choose the layer, and maximum others to choose c."""
    steer_items: int = 45
    """Maximum items of each held-out part to steer."""
    separate_items: int = 30
    """Held-out items to measure the separation on, beside PairAcc."""
    text_tokens: int = 1024
    """Tokens of ordinary text to measure the side effects on."""
    sae: str = ""
    """SAEs of the knob's site to split it by (of several, the widest): a folder, or
    release:sae_id."""
    anyway: bool = field(default=False, kw_only=True, metadata={"key": False})
    """Take SAEs that name another model, or a hook that is not known here; the manifest says so."""

    def check(self) -> None:
        super().check()
        self.chosen_layers(self.stored_weights.spec.n_layers)
        counts = ("learn_items", "validate", "steer_items", "separate_items")
        if min(getattr(self, name) for name in counts) < 1 or min(self.ranks, default=1) < 1:
            raise UserError(f"ranks and {', '.join(counts)} must be at least 1")
        if self.text_tokens < TEXT_ROW:
            raise UserError(f"--text-tokens must be at least {TEXT_ROW}, one row of text")

    def chosen_layers(self, n_layers: int) -> list[int]:
        """The layers to learn at.

        Raises:
            UserError: a layer that the model lacks.
        """
        if any(not 0 <= layer < n_layers for layer in self.layers):
            raise UserError(f"--layers must be in 0..{n_layers - 1} for {self.model}")
        return sorted(set(self.layers)) or list(range(n_layers // 3 + 1, n_layers - 1, 3))
