"""What the options that several studies share mean: a target, an observable, a pair of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING

from ..errors import UserError
from ..obsprop.task_files import Task

if TYPE_CHECKING:
    from ..model.batch import Batch
    from ..model.prompting import Prompting
    from ..model.subject import Subject
    from ..model.weights import Weights
    from .target import Target


def asked_target(
    subject: Subject, weights: Weights, target: str | int, against: str, task: Task | None
) -> Target:
    """What the options --target, --against and --observable mean."""
    from ..obsprop.observables import make_observable
    from .target import of_observable, open_target

    if task is None:
        return open_target(subject, target, against)
    return of_observable(make_observable(task.name, task.observable, weights))


def task_print(task: Task | None) -> dict[str, str]:
    """The fingerprint of an observable's file."""
    return {"observable": sha256(repr(task).encode()).hexdigest()} if task else {}


def tokens_of(subject: Subject, batch: Batch) -> list[str]:
    """A prompt's tokens as text."""
    return [subject.text(token[None]) for token in batch.ids[0]]


def check_texts(prompting: Prompting, texts: Sequence[str]) -> None:
    """`check_pair` of two texts, by the tokenizer alone; "" is none."""
    ids = [prompting.ids(text) for text in texts if text]
    if len(ids) == 2:
        check_pair(*([prompting.text([i]) for i in row] for row in ids))


def check_pair(said: Sequence[str], others: Sequence[str]) -> None:
    """Raise UserError for prompts of different lengths, with the tokens of both."""
    if len(said) != len(others):
        raise UserError(
            f"the prompts have {len(said)} and {len(others)} tokens, and a position of one has to "
            f"be that of the other: {list(said)} and {list(others)}"
        )
