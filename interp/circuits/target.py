"""What a circuit explains: a logit, the difference of two, or an observable, at one position."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import UserError
from ..model.prompting import one_token
from ..model.subject import Subject
from ..obsprop.observables import Observable


@dataclass(frozen=True)
class Target:
    """A weighted sum of the model's own logits (after its scale and soft cap)."""

    name: str
    """As people read it, tokens in quotes."""
    ids: Int[Tensor, " tokens"]
    weights: Float[Tensor, " tokens"]
    position: int = -1
    """Of the prompt; the next token's logits stand at the last."""

    def value(self, logits: Float[Tensor, "batch pos d_vocab"]) -> Float[Tensor, " batch"]:
        """weights . logits at the position."""
        picked: Tensor = logits[:, self.position][:, self.ids.to(logits.device)]
        return picked @ self.weights.to(logits.device, logits.dtype)


def open_target(subject: Subject, target: str | int, against: str = "") -> Target:
    """A token's logit, less another's; by default less the mean over the vocabulary, since what is
    added to all logits changes no probability.

    Raises:
        UserError: a word of several tokens, or the same one twice.
    """
    if isinstance(target, int):
        plus, target = target, subject.text(torch.tensor([target]))
    else:
        plus = one_token(subject.prompting, target, subject.spec.d_vocab)
    if not against:
        size = subject.spec.d_vocab
        weights = torch.full((size,), -1 / size, dtype=torch.double)
        weights[plus] += 1
        return Target(f"{target!r} - mean", torch.arange(size), weights)
    minus = one_token(subject.prompting, against, subject.spec.d_vocab)
    if plus == minus:
        raise UserError(f"{target!r} and {against!r} are the same token: give two")
    return Target(
        f"{target!r} - {against!r}", torch.tensor([plus, minus]), torch.tensor([1.0, -1.0])
    )


def of_observable(observable: Observable) -> Target:
    """An observable as a target. Its value is of the model's own logits, soft cap and all."""
    return Target(observable.name, observable.ids, observable.weights)
