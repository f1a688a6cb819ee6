"""Tasks for circuits: pairs of prompts that differ in a word and in what the model says next.

A task's file (those that ship are in `data/circuits/`) has

    about   what the task is (optional)
    tried   how many of its first pairs are there to try things out on: they count for no result
            (optional, 0)
    pairs   lists of four texts: the prompt, its counterfactual of as many tokens, the token that
            the prompt asks for, the token that the counterfactual asks for

The *gap* of a pair is what the counterfactual takes away from the target, in logits:

    gap = (logit[target] - logit[other])(prompt) - (logit[target] - logit[other])(counterfactual)

A pair that does not fit a model, or whose gap is too small to share out, is left out and counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.data import FOLDER

from ..errors import UserError
from ..model.prompting import Prompting
from ..model.weights import Weights
from ..plain_path import plain_path
from ..plain_yaml import read_yaml

TASKS = FOLDER / "circuits"
KEYS = ("about", "tried", "pairs")
Read = Callable[[Float[Tensor, "rows d_model"]], Float[Tensor, " rows"]]
"""The target's value where the stream ends in x."""


class Pair(NamedTuple):
    """A prompt and its counterfactual."""

    prompt: str
    counterfactual: str
    target: str
    other: str


@dataclass(frozen=True)
class Task:
    """A task's file, read and checked."""

    name: str
    about: str
    pairs: tuple[Pair, ...]
    tried: int = 0


class Coded(NamedTuple):
    """A pair in a model's tokens, or why it does not fit."""

    ids: Int[Tensor, "2 pos"]
    """The prompt's, then the counterfactual's."""
    target: int
    other: int
    reason: str = ""


def shipped() -> list[str]:
    """Names of the tasks that come with the workbench."""
    return sorted(path.stem for path in TASKS.glob("*.yaml"))


def read_task(name: str) -> Task:
    """A shipped task by its name, or one's own by the path of its .yaml file.

    Raises:
        UserError: no such task, or a file that is none: with its key and entry.
    """
    own = plain_path(name)
    path = own if own.suffix in (".yaml", ".yml") else TASKS / f"{name}.yaml"
    if not path.is_file():
        raise UserError(
            f"there is no task '{name}': choose one of {', '.join(shipped())}, or give the path of "
            "a .yaml file"
        )
    content = read_yaml(path)
    if not isinstance(content, dict) or "pairs" not in content:
        raise UserError(f"{path} lacks the key 'pairs': a task's keys are {', '.join(KEYS)}")
    if unknown := [key for key in content if key not in KEYS]:
        raise UserError(
            f"{path} has a key '{unknown[0]}' that no task has: a task's are {', '.join(KEYS)}"
        )
    pairs, tried = _pairs(content["pairs"], str(path)), str(content.get("tried", "0"))
    if not (tried.isascii() and tried.isdecimal() and int(tried) < len(pairs)):
        raise UserError(
            f"{path}: 'tried' must be a number from 0 to {len(pairs) - 1}, so that a pair is left, "
            f"not {tried!r}"
        )
    about = content.get("about", path.stem)
    if not isinstance(about, str):
        raise UserError(f"{path}: 'about' must be a text")
    return Task(path.stem, about.strip(), pairs, int(tried))


def _pairs(given: Any, path: str) -> tuple[Pair, ...]:
    if not isinstance(given, list) or not given:
        raise UserError(f"{path}: 'pairs' must be a list with at least one pair")
    for number, entry in enumerate(given, 1):
        four = isinstance(entry, list) and len(entry) == len(Pair._fields)
        if not four or not all(isinstance(text, str) and text.strip() for text in entry):
            raise UserError(
                f"{path}: entry {number} of 'pairs' must be four texts: prompt, counterfactual, "
                "target, other"
            )
        pair = Pair(*entry)
        if pair.prompt == pair.counterfactual or pair.target == pair.other:
            raise UserError(f"{path}: entry {number} of 'pairs' has the same text twice")
    return tuple(Pair(*entry) for entry in given)


def fingerprints(tasks: Sequence[Task]) -> dict[str, str]:
    """What a run depends on of its tasks' files."""
    return {f"task {t.name}": hashlib.sha256(repr(t).encode()).hexdigest() for t in tasks}


def coded(pair: Pair, prompting: Prompting) -> Coded:
    """A pair in a model's tokens; where it does not fit, `reason` says why."""
    rows = [prompting.ids(text) for text in pair[:2]]
    answers = [prompting.plain(text) for text in pair[2:]]
    if len(rows[0]) != len(rows[1]):
        reason = f"the prompts are {len(rows[0])} and {len(rows[1])} tokens"
        return Coded(torch.zeros(2, 0, dtype=torch.long), -1, -1, reason)
    for text, ids in zip(pair[2:], answers, strict=True):
        if len(ids) != 1:
            return Coded(torch.tensor(rows), -1, -1, f"'{text}' is {len(ids)} tokens")
    return Coded(torch.tensor(rows), answers[0][0], answers[1][0])


def reader(weights: Weights, W_U: Float[Tensor, "d_vocab d_model"], pair: Coded) -> Read:
    """What gives the target, logit[target] - logit[other], from the end of the stream: two rows of
    the unembedding instead of all. In float64; the model's own scale and soft cap are in it."""
    ids = torch.tensor([pair.target, pair.other])
    rows, bias = W_U[ids].double(), weights.b_U()[ids].double()

    def read(x: Float[Tensor, "rows d_model"]) -> Float[Tensor, " rows"]:
        end = weights.before_unembedding(x.cpu())
        logits = weights.spec.capped(end @ rows.T + bias)
        return logits[:, 0] - logits[:, 1]

    return read
