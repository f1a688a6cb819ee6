"""What a rule predicts for a patch against what the patch really does.

Two kinds of patch, each with the counterfactual's activations: all neurons of one MLP at one
position, and one neuron. The prediction is the sum of the patched neurons' scores (scores.py); the
real effect is v - v(patched), in logits. Only places at which the two prompts differ are looked at:
before the first token that differs both are 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..model.subject import Subject
from .ablate import Neurons, Patch, Place, patched
from .prepared import Prepared
from .rules import PREDICTING
from .scores import order

RANDOM = "random"


def chosen_neurons(
    found: Mapping[str, Tensor], change: Float[Tensor, " n"], top: int, random: int, seed: list[int]
) -> dict[int, str]:
    """Numbers of neurons to patch one by one, and who chose them: the `top` of each rule, and
    `random` ones among those whose activation changes."""
    chosen: dict[int, list[str]] = {}
    for rule in PREDICTING:
        for number in order(found[rule].abs())[:top].tolist():
            chosen.setdefault(number, []).append(rule)
    left = [n for n in change.nonzero()[:, 0].tolist() if n not in chosen]
    drawn = np.random.default_rng(seed).choice(left, min(random, len(left)), replace=False)
    named = {number: " ".join(rules) for number, rules in chosen.items()}
    return named | {int(number): RANDOM for number in drawn}


def pair_effects(
    subject: Subject,
    pair: Prepared,
    neurons: Neurons,
    own: Float[Tensor, "2 n"],
    found: Mapping[str, Tensor],
    chosen: Mapping[int, str],
) -> Iterator[dict[str, Any]]:
    """Rows of the table `patched` for one pair."""
    changes = (own[0] - own[1]).abs()
    mlps = [(at, numbers, "") for at, numbers in neurons.groups() if bool(changes[numbers].any())]
    single = [(neurons.place(n), torch.tensor([n]), by) for n, by in chosen.items()]
    places: list[tuple[Place, Tensor, str]] = [*mlps, *single]
    patches = [Patch(numbers) for _, numbers, _ in places]
    values = patched(subject, pair.coded.ids[0], neurons, own[1], patches, pair.read)
    for (place, numbers, by), value in zip(places, values.tolist(), strict=True):
        predicted = {rule: float(found[rule][numbers].sum()) for rule in PREDICTING}
        about = {**pair.label, "what": "neuron" if by else "MLP", **place._asdict(), "chosen": by}
        yield {**about, "real": pair.value - value, **predicted}
