"""What is asked of a text and what comes of it, in plain values: no torch."""

from __future__ import annotations

import ast
import re
from typing import Any, NamedTuple

import pandas as pd

from ..model.vocabulary import visible

EMBEDDING, ATTENTION, MLP, BIAS = "embedding", "attention", "MLP", "bias"
"""The kinds of part whose contributions add up to a logit. The embedding's layer is -1, that of the
last bias (of the final norm and the unembedding) is the number of layers."""
KINDS = (EMBEDDING, ATTENTION, MLP, BIAS)


def part_name(kind: str, layer: int) -> str:
    """A part as people read it: "12 MLP"."""
    return kind if layer < 0 else f"{layer} {kind}"


class Question(NamedTuple):
    """What says this token after that one of a text; fields as in `LookConfig`."""

    text: str
    position: int = -1
    target: str = ""
    against: str = ""
    alone: bool = False

    def config(self, model: str, **more: Any) -> dict[str, Any]:
        """The settings of the study that answers it."""
        named = self._asdict()
        return {"model": model, "prompt": named.pop("text"), **named, **more}


class Explained(NamedTuple):
    """A logit, and the parts, heads and neurons that make it."""

    target: str
    value: float
    """Of the model's own logit."""
    parts: pd.DataFrame
    heads: pd.DataFrame
    neurons: pd.DataFrame


class Compared(NamedTuple):
    """A logit in two texts."""

    target: str
    value: float
    other_value: float
    position: int
    """In the other text."""
    how: str
    """Why it is that one."""
    rows: pd.DataFrame
    """As `differences.differences`."""
    tokens: pd.DataFrame
    """Of both, as `pair.side_by_side`."""


_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")


def spelled(target: str) -> str:
    """A logit's name with its tokens as pages show them: "␣Paris - mean" of "' Paris' - mean"."""
    return _QUOTED.sub(lambda quoted: visible(ast.literal_eval(quoted[0])), target)
