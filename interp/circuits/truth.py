"""The study `circuits.truth`: do the neurons that a rule names carry what a model says?

Sources: faithfulness and completeness as in Marks et al. 2024, "Sparse feature circuits"; the rules
in scores.py. Neurons are counted one a position. The unit of every interval is the pair.

Tables of the run:
pairs.parquet     task, pair int, prompt, counterfactual, target, other string, tokens int, value,
                  counterfactual_value, gap double (logits; NaN where the pair does not fit the
                  model), reason string: why it is left out of all that follows, "" if it is not
curves.parquet    task, pair, ablation (resample | mean), rule, part (kept | moved), n int, value
                  double (the target under the patch), share double (curves.py); the rule "all" has
                  all neurons of the prompt
shares.parquet    task, rule, ablation, part, n, pairs int (those whose target falls by the least
                  gap where all neurons are ablated), median, median_low, median_high of the share,
                  nearly_all, nearly_all_low, nearly_all_high: how many of the pairs, from 0 to 1,
                  have a share of .9 at least; unit string
needed.parquet    task, rule, ablation, part, pairs, reached int (pairs that get to .8 with the
                  largest count), neurons, neurons_low, neurons_high: the median number of neurons
                  for a share of .8, inf where most pairs do not get there; unit
patched.parquet   task, pair, what (MLP | neuron), layer, position, neuron int (-1 for an MLP),
                  chosen string (the rules that have it among their top, or "random"), real double
                  (what the target loses), half, gate, gradient, integrated double: predictions
correlations.parquet   task, what, rule, pairs, r, r_low, r_high (median over pairs); unit
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..runs.parted_tables import Made, parted_tables
from ..runs.study import PartedStudy, TextStudy
from ..runs.study_task import StudyTask
from ..runs.writer import RunWriter
from . import summaries
from .rules import PREDICTING, RULES, check_rules

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from ..model.subject import Subject
    from .prepared import Prepared
    from .tasks import Task

TABLES = ("pairs", "curves", "patched")
"""What each pair has rows of."""
SHIPPED = ("number-agreement", "pronoun", "capital", "opposite")


@dataclass(frozen=True)
class TruthConfig(TextStudy, PartedStudy):
    """Patch the neurons that each rule names, and see how much of the target they carry."""

    STUDY: ClassVar[str] = "circuits.truth"
    VERSION: ClassVar[int] = 1

    task: tuple[str, ...] = SHIPPED
    """Tasks that come with the workbench, or paths of .yaml files of your own."""
    rules: tuple[str, ...] = RULES
    """How neurons are chosen: half, gate, gradient, integrated, difference, random."""
    counts: tuple[int, ...] = (1, 3, 10, 30, 100, 300, 1000, 3000)
    """Numbers of neurons to patch together."""
    least_gap: float = 2.0
    """Pairs with a smaller gap, in logits, are left out; of means, those whose target falls by less
    where all neurons are ablated."""
    compared: int = 20
    """The number of pairs of each task whose single neurons and MLPs are patched one by one."""
    top: int = 20
    """Of these, so many neurons by each rule are patched..."""
    random: int = 40
    """... and so many random ones."""
    steps: int = 5
    """Steps of the integrated gradients."""
    seed: int = 0
    """Seed of the random neurons."""

    @cached_property
    def _tasks(self) -> list[Task]:
        from .tasks import read_task

        return [read_task(name) for name in self.task]

    def fingerprints(self) -> dict[str, str]:
        from .tasks import fingerprints

        return {**super().fingerprints(), **fingerprints(self._tasks)}

    def check(self) -> None:
        super().check()
        assert self.spread
        self.stored_weights.check_dense("circuits truth")
        check_rules(self.rules)
        names = [task.name for task in self._tasks]
        if not names or len(set(names)) < len(names):
            raise UserError("give at least one --task, and each once")
        if not self.counts or min(self.counts) < 1 or len(set(self.counts)) < len(self.counts):
            raise UserError("--counts needs different numbers from 1 up")
        if not (math.isfinite(self.least_gap) and self.least_gap > 0):
            raise UserError(f"--least-gap must be more than 0, not {self.least_gap:g}")
        if min(self.compared, self.top, self.random, self.steps) < 1 or self.seed < 0:
            raise UserError(
                "--compared, --top, --random and --steps must be at least 1, --seed at least 0"
            )

    def run(self, out: RunWriter) -> dict[str, Any]:
        numbers = range(sum(len(task.pairs) for task in self._tasks))
        how = (self.spread, "patch neurons and MLPs", "pairs")
        pairs, whole, effects = parted_tables(out, TABLES, _Pairs.of(self), numbers, *how)
        table = summaries.measurable(whole, pairs, self.least_gap)
        shares = out.table_once("shares", lambda: summaries.shares(table))
        out.table_once("needed", lambda: summaries.needed(table))
        out.table_once("correlations", lambda: summaries.correlations(effects))
        used = int((pairs["reason"] == "").sum())
        return {"pairs": len(pairs), "used": used, **self._best(shares)}

    def curves(self, opened: _Opened, pair: Prepared) -> Iterator[dict[str, Any]]:
        """A pair's rows of `curves`."""
        from .curves import pair_curves
        from .scores import scores

        subject = opened.subject
        neurons, own = pair.state(subject)
        found = scores(
            *(subject, pair.coded, neurons, own, pair.read, self.rules),
            steps=self.steps,
            seed=[self.seed, pair.number],
        )
        others = {"resample": own[1], "mean": opened.means[pair.task, neurons.positions]}
        return pair_curves(subject, pair, neurons, others, found, self.counts)

    def effects(self, opened: _Opened, pair: Prepared) -> Iterator[dict[str, Any]]:
        """A pair's rows of `patched`."""
        from .compared import chosen_neurons, pair_effects
        from .scores import scores

        subject = opened.subject
        neurons, own = pair.state(subject)
        found = scores(
            *(subject, pair.coded, neurons, own, pair.read, PREDICTING), steps=self.steps
        )
        chosen = chosen_neurons(
            *(found, own[0] - own[1], self.top, self.random, [self.seed, pair.number])
        )
        return pair_effects(subject, pair, neurons, own, found, chosen)

    def _best(self, shares: pd.DataFrame) -> dict[str, Any]:
        """Of the first task, the median share that 30 neurons (or the count nearest) move."""
        count = min(self.counts, key=lambda n: abs(n - 30))
        rows = shares[
            (shares["task"] == self._tasks[0].name)
            & (shares["n"] == count)
            & (shares["part"] == "moved")
            & (shares["ablation"] == "resample")
        ]
        return {
            f"moved by {count}, {rule}": float(value)
            for rule, value in zip(rows["rule"], rows["median"], strict=True)
        }


@dataclass(frozen=True)
class _Opened:
    """What a worker keeps from pair to pair."""

    subject: Subject
    every: list[Prepared]
    compared: int

    @cached_property
    def means(self) -> dict[tuple[str, int], Tensor]:
        from .prepared import means

        return means(self.subject, self.every)

    @cached_property
    def first(self) -> set[tuple[str, int]]:
        """The pairs, by task and number, whose neurons and MLPs are patched one by one."""
        used = [each for each in self.every if not each.reason]
        of_task = groupby(used, key=lambda each: each.task)
        return {(task, each.number) for task, own in of_task for each in islice(own, self.compared)}


class _Pairs(StudyTask[TruthConfig]):
    """Makes a pair's rows of TABLES."""

    def opened(self) -> _Opened:
        from .prepared import prepared

        own = self.config
        subject = own.open_here()
        every = prepared(subject, own.stored_weights, own._tasks, own.least_gap)
        return _Opened(subject, every, own.compared)

    def made(self, opened: _Opened, part: int) -> Made:
        pair = opened.every[part]
        curves = [] if pair.reason else self.config.curves(opened, pair)
        compared = (pair.task, pair.number) in opened.first
        effects = self.config.effects(opened, pair) if compared else []
        return Made.of(self.config.facts_of(opened.subject), [pair.row()], curves, effects)
