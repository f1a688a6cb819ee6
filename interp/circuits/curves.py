"""How much of the gap the first n neurons carry, for each way to choose them.

For a pair with the target's value v at the prompt, v' at the counterfactual, and v0 where *all*
neurons have the other activations (the embeddings and the attention to them stay the prompt's):

    moved(n)  (v - v(remove the first n)) / gap      completeness: 1 if all of the gap is gone
    kept(n)   (v(keep the first n) - v0) / (v - v0)  faithfulness: 0 for no neuron, 1 for all

With the counterfactual's activations (resample) the gap is v - v'; with means it is v - v0, since
a mean says nothing of the counterfactual; where that falls short of the least gap there is no
share (summaries.py). Effects do not add up: both may be more than 1, and
nothing is clipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..model.subject import Subject
from .ablate import Neurons, Patch, patched
from .prepared import Prepared
from .scores import order


def pair_curves(
    subject: Subject,
    pair: Prepared,
    neurons: Neurons,
    others: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    counts: Sequence[int],
) -> Iterator[dict[str, Any]]:
    """Rows of the table `curves` for one pair; the rule "all" is all neurons at once.

    Args:
        others: by ablation, the activations that patched neurons get.
        found: by rule, the neurons' scores.
    """
    fitting = [n for n in counts if n <= neurons.total]
    every = torch.arange(neurons.total)
    sets = [
        (rule, part, n, Patch(chosen[:n], keep=part == "kept"))
        for rule, chosen in ((rule, order(score)) for rule, score in found.items())
        for part in ("kept", "moved")
        for n in fitting
    ]
    for ablation, other in others.items():
        patches = [Patch(every), *(patch for *_, patch in sets)]
        values = patched(subject, pair.coded.ids[0], neurons, other, patches, pair.read).tolist()
        none, of_sets = values[0], values[1:]
        gap = pair.gap if ablation == "resample" else pair.value - none
        about = {**pair.label, "ablation": ablation}
        share = _ratio(pair.value - none, gap)
        yield {**about, "rule": "all", "part": "moved", "n": neurons.total, "value": none} | {
            "share": share
        }
        for (rule, part, n, _), value in zip(sets, of_sets, strict=True):
            kept = _ratio(value - none, pair.value - none)
            share = kept if part == "kept" else _ratio(pair.value - value, gap)
            yield {**about, "rule": rule, "part": part, "n": n, "value": value, "share": share}


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")  # no neuron may do anything
