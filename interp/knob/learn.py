"""Learn the knob, choose its settings, and steer with it: `interp knob learn`.

1. Learn a subspace at every layer asked for (see subspace.py). The layer whose subspace swaps the
   answers best has the knob; subspaces of more dimensions are compared with it there.
2. Take three other directions at that layer: the mean difference, a logistic probe, a random one.
   Sweep c along each, with no intent in the prompt (see steer.py).
3. Answer the held-out parts with the chosen c: in the tuned model, and, each after a sweep of its
   own, in the model without its adapter, with and without demonstrations (of no intent either).
4. Measure what steering costs, how separation goes with PairAcc, and what the direction is (see
   effects.py).

One half of the validation facts chooses the layer and judges the ranks, the other half chooses c.

Written to the run, besides the tables of effects.py; <setting> is one of settings.STEERED:
`learn/curve`      rank, layer, step, loss
`learn/layers`     rank, layer, loss, swapped (share of validation rows whose answer is swapped),
    whole_loss, whole_swapped (the same when the whole residual is replaced), rows
`learn/ranks`      the same columns at the knob's layer, a line a rank
`knob/`            Directions: index name, layer, context, prior, spread (of u.h in the model
    the knob was learned in), context_c, prior_c (the chosen values)
`sweep/<setting>`  see steer.sweep
`steer/<setting>`  direction ("none": the intent in the prompt instead), part, and
    evaluate.answer_rows' columns
`steer/scores`     model (the setting), direction, part, and evaluate.scores' columns
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import UserError
from ..runs.writer import RunWriter
from .adapter import TunedModelStudy, open_for
from .items import Splits
from .settings import STEERED, LearnSettings


@dataclass(frozen=True)
class LearnConfig(TunedModelStudy, LearnSettings):
    """Learn the direction that decides between context and prior knowledge, and steer with it."""

    STUDY: ClassVar[str] = "knob.learn"
    VERSION: ClassVar[int] = 3

    def run(self, out: RunWriter) -> dict[str, Any]:
        return learn_knob(self, self.adapter, out)


def learn_knob(config: LearnSettings, adapter: str, out: RunWriter) -> dict[str, Any]:
    """Compute every stage that `out` does not have yet; return the metrics."""
    from ..saes.open import check_saes
    from . import effects, stages

    if config.sae:
        out.facts |= check_saes(config.sae, config.model, config.anyway)
    subject = open_for(config, adapter, out)
    differs = config.prompter(subject).first_tokens_differ
    splits = Splits(*([x for x in items if differs(x)] for items in config.splits(out)))
    if not (splits.validation and splits.train and (splits.subjects or splits.relations)):
        raise UserError("there are too few items to learn, validate and steer on: add facts")
    work = stages.Work(config, subject, splits, out)
    layer = stages.learn_layers(work)
    has_adapter = adapter != "none"
    knobs = stages.find_knob(work, layer, STEERED[0 if has_adapter else 1])
    stages.compare_ranks(work, layer)
    effects.decode(work, knobs)
    facts = len({item.key for item in splits.train})
    for tuned in (True, False) if has_adapter else (False,):
        if tuned != has_adapter:
            work = work._replace(subject=open_for(config, "none", out))
        for setting in STEERED:
            if setting.tuned == tuned and setting.shots <= facts:
                stages.steer_model(work, knobs, setting)
        model = "tuned" if tuned else "untuned"
        effects.text_cost(work, knobs.pick([0]), model)
        effects.configurations(work, knobs.pick([0]), model)
    return stages.metrics(out)
