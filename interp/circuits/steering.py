"""The study `circuits.steer`: does clamping a neuron do what its row says?

A neuron with activation a in a prompt and a' in its counterfactual is held at a + t (a' - a) for
several factors t, at its position, by the edit `clamp`. A rule predicts that the target changes by
row . t (a' - a); beside it stands how it really changes, in logits.

Tables of the run:
sweep.parquet   task string, pair, layer, position, neuron int, chosen string (the rules that have
                it among their top), factor, value double (what it is held at), real, half, gate,
                gradient, integrated double: the real and the predicted change of the target
fits.parquet    task, reach string (within: factors of 1 at most; all), rule, pairs, neurons int,
                slope, slope_low, slope_high: of the real change on the predicted, least squares,
                its median over pairs; r2, r2_low, r2_high: the square of their correlation; unit
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ..errors import UserError
from ..runs.parted_tables import Made, parted_tables
from ..runs.study import PartedStudy, TextStudy
from ..runs.study_task import StudyTask
from ..runs.writer import RunWriter
from . import summaries
from .rules import PREDICTING

if TYPE_CHECKING:
    from ..model.subject import Subject
    from .ablate import Place
    from .prepared import Prepared
    from .tasks import Task


@dataclass(frozen=True)
class SteerConfig(TextStudy, PartedStudy):
    """Clamp the neurons that each rule names, and compare the target with the prediction."""

    STUDY: ClassVar[str] = "circuits.steer"
    VERSION: ClassVar[int] = 1

    task: str = "number-agreement"
    """A task that comes with the workbench, or the path of a .yaml file of your own."""
    pairs: int = 8
    """How many of the task's pairs are used: the first ones that are not left out."""
    neurons: int = 20
    """How many neurons each rule names; all of them are clamped."""
    factors: tuple[float, ...] = (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)
    """How far towards the counterfactual's activation a neuron is moved: 1 is all the way."""
    least_gap: float = 2.0
    """Pairs with a smaller gap, in logits, are left out."""
    steps: int = 5
    """Steps of the integrated gradients."""

    @cached_property
    def _task(self) -> Task:
        from .tasks import read_task

        return read_task(self.task)

    def fingerprints(self) -> dict[str, str]:
        from .tasks import fingerprints

        return {**super().fingerprints(), **fingerprints([self._task])}

    def check(self) -> None:
        super().check()
        assert self.spread
        self.stored_weights.check_dense("circuits steer")
        if min(self.pairs, self.neurons, self.steps) < 1:
            raise UserError("--pairs, --neurons and --steps must be at least 1")
        finite = all(map(math.isfinite, self.factors))
        if len(set(self.factors)) < 3 or not finite or 0 in self.factors:
            raise UserError("--factors needs three different finite numbers other than 0")
        if not (math.isfinite(self.least_gap) and self.least_gap > 0):
            raise UserError(f"--least-gap must be more than 0, not {self.least_gap:g}")

    def run(self, out: RunWriter) -> dict[str, Any]:
        numbers = range(min(self.pairs, len(self._task.pairs)))
        how = (numbers, self.spread, "clamp neurons", "pairs")
        (sweep,) = parted_tables(out, ("sweep",), _Pairs.of(self), *how)
        table = out.table("fits", summaries.fits(sweep))
        whole = table[table["reach"] == "all"]
        slopes = dict(zip(whole["rule"], whole["slope"], strict=True))
        return {
            "pairs": int(sweep["pair"].nunique()),
            **{f"slope, {rule}": s for rule, s in slopes.items()},
        }

    def sweep(self, subject: Subject, pair: Prepared) -> Iterator[dict[str, Any]]:
        """A pair's rows of `sweep`."""
        from .scores import order, scores

        neurons, own = pair.state(subject)
        found = scores(
            *(subject, pair.coded, neurons, own, pair.read, PREDICTING), steps=self.steps
        )
        chosen: dict[int, list[str]] = {}
        for rule in PREDICTING:
            for number in order(found[rule].abs())[: self.neurons].tolist():
                chosen.setdefault(number, []).append(rule)
        for number, rules in chosen.items():
            place, (here, there) = neurons.place(number), own[:, number].tolist()
            if here == there:
                continue  # a rule that has fewer neurons than it is to name
            values = [here + factor * (there - here) for factor in self.factors]
            ends = clamped(subject, pair, place, values)
            for factor, value, end in zip(self.factors, values, ends, strict=True):
                predicted = {rule: -factor * float(found[rule][number]) for rule in PREDICTING}
                about = {**pair.label, **place._asdict(), "chosen": " ".join(rules)}
                change = {"real": end - pair.value, **predicted}
                yield {**about, "factor": factor, "value": value, **change}


class _Opened(NamedTuple):
    """What a worker keeps from pair to pair."""

    subject: Subject
    used: list[Prepared]


class _Pairs(StudyTask[SteerConfig]):
    """Makes the rows of a pair, by its number among those that are used; none where there are
    fewer."""

    def opened(self) -> _Opened:
        from .prepared import prepared

        own = self.config
        subject = own.open_here()
        every = prepared(subject, own.stored_weights, [own._task], own.least_gap)
        return _Opened(subject, [each for each in every if not each.reason])

    def made(self, opened: _Opened, part: int) -> Made:
        subject, used = opened
        rows = self.config.sweep(subject, used[part]) if part < len(used) else []
        return Made.of(self.config.facts_of(subject), rows)


def clamped(subject: Subject, pair: Prepared, place: Place, values: Sequence[float]) -> list[float]:
    """The target with one neuron held at each of some values."""
    import torch

    from ..model.edits import clamp
    from ..model.site import Site
    from .ablate import END

    ids = pair.coded.ids[0].expand(len(values), -1)
    where = torch.zeros(ids.shape, dtype=torch.bool)
    where[:, place.position] = True
    site = Site("mlp_post", place.layer)
    with subject.edited(clamp(site, place.neuron, torch.tensor(values), where)):
        end = subject.capture(ids, [END])[END]
    found: list[float] = pair.read(end[:, -1]).tolist()
    return found
