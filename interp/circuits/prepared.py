"""Pairs ready to be worked on: their tokens in a model, their gaps, and why some are left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import UserError
from ..model.subject import Subject
from ..model.weights import Weights
from .ablate import Neurons, activations
from .tasks import Coded, Pair, Read, Task, coded, reader

NOT_HELD_OUT = "to try things out on"


class Prepared(NamedTuple):
    """A pair of a task in one model."""

    task: str
    number: int
    pair: Pair
    coded: Coded
    read: Read
    value: float
    """The target at the prompt, in logits."""
    counterfactual: float
    """The target at the counterfactual."""
    reason: str
    """Why it is left out; "" if it is not."""

    @property
    def gap(self) -> float:
        return self.value - self.counterfactual

    @property
    def label(self) -> dict[str, Any]:
        return {"task": self.task, "pair": self.number}

    def row(self) -> dict[str, Any]:
        """Of the table `pairs`."""
        values = {"value": self.value, "counterfactual_value": self.counterfactual}
        tokens = self.coded.ids.shape[1]
        about = {"tokens": tokens, **values, "gap": self.gap, "reason": self.reason}
        return {**self.label, **self.pair._asdict(), **about}

    def state(self, subject: Subject) -> tuple[Neurons, Float[Tensor, "2 n"]]:
        """The neurons, and their activations in the prompt and in the counterfactual."""
        neurons, own, _ = activations(subject, self.coded.ids)
        return neurons, own


def prepared(
    subject: Subject, weights: Weights, tasks: Sequence[Task], least_gap: float
) -> list[Prepared]:
    """Every pair of some tasks, those that are left out too.

    Raises:
        UserError: a task of which no pair is left.
    """
    W_U = weights.W_U()
    found = [each for task in tasks for each in _of_task(subject, weights, W_U, task, least_gap)]
    for task in tasks:
        reasons = [each.reason for each in found if each.task == task.name]
        if all(reasons):
            raise UserError(
                f"no pair of the task '{task.name}' can be used with this model; the first: "
                f"{reasons[0]}"
            )
    return found


def _of_task(
    subject: Subject, weights: Weights, W_U: Tensor, task: Task, least_gap: float
) -> Iterator[Prepared]:
    for number, pair in enumerate(task.pairs):
        fit = coded(pair, subject.prompting)
        read = reader(weights, W_U, fit)
        if fit.reason:
            nan = float("nan")
            yield Prepared(task.name, number, pair, fit, read, nan, nan, fit.reason)
            continue
        value, other = read(activations(subject, fit.ids)[2]).tolist()
        reason = NOT_HELD_OUT if number < task.tried else ""
        if value - other < least_gap:
            reason = f"the gap is {value - other:.2f}, less than {least_gap:g}"
        yield Prepared(task.name, number, pair, fit, read, value, other, reason)


def means(subject: Subject, every: Sequence[Prepared]) -> dict[tuple[str, int], Tensor]:
    """By task and number of tokens, the mean activation of every neuron over the prompts and the
    counterfactuals: of all pairs that fit the model, those that are left out for their gap too."""
    sums: dict[tuple[str, int], Tensor] = {}
    counts: dict[tuple[str, int], int] = {}
    for each in every:
        if each.coded.reason:
            continue
        key = (each.task, each.coded.ids.shape[1])
        own = each.state(subject)[1].double().sum(0)
        sums[key] = sums.get(key, torch.zeros_like(own)) + own
        counts[key] = counts.get(key, 0) + 2
    return {key: (total / counts[key]).float() for key, total in sums.items()}
