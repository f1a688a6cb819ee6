"""Sizes in a config.json, held against the tensors that are there before anything is made by them.

Libraries build a model from its config alone: of a billion layers they make a list first, of a
billion tokens an embedding. What a config counts can be no more than its files hold.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterator
from math import prod
from pathlib import Path
from typing import Any

from ..errors import UserError
from .tensor_files import Stored

_COUNTS = re.compile(r"(?!max_).*(layers?|depth|blocks?|heads?|experts)")
"""Names of fields that count what is made one by one."""
_SPARE = 2**24
"""So many numbers, 64 MB, more than twice those in the files are made without a word: what is
missing is named after that, tensor by tensor."""


def check_counts(folder: Path, config: dict[str, Any], stored: Collection[Stored]) -> None:
    """Raise UserError for a config that counts more layers, heads or experts than the tensors of
    the folder can be of."""
    most = max(len(stored), *(max(tensor.shape, default=1) for tensor in stored))
    for name, value in _numbers(config):
        if value > most and _COUNTS.fullmatch(name):
            raise UserError(
                f"{folder}/config.json has {value} as '{name}', and there are {len(stored)} "
                f"tensors, the longest side of any of {most}: mend it or fetch it again"
            )


def check_implied(folder: Path, auto: Any, config: Any, stored: Collection[Stored]) -> None:
    """Raise UserError where transformers would make far more numbers than the files hold.

    Args:
        auto: the class of transformers' that makes the model.
        config: transformers' config.
    """
    import torch

    with torch.device("meta"):  # shapes alone
        model = auto.from_config(copy.deepcopy(config))
    made = sum(t.numel() for each in (model.parameters(), model.buffers()) for t in each)
    # packed numbers of four bits are stored by twos
    held = sum(prod(t.shape) * (2 if t.dtype == "U8" else 1) for t in stored)
    if made > 2 * held + _SPARE:
        raise UserError(
            f"{folder}/config.json makes a model of {made:,} numbers, and its files hold "
            f"{held:,}: mend it or fetch it again"
        )


def _numbers(config: Any) -> Iterator[tuple[str, int]]:
    """Every whole number of a config, under its field's name."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _numbers(value)
        each = value if isinstance(value, list) else [value]
        yield from ((name, n) for n in each if isinstance(n, int))
