"""Which neurons to choose: what each carries of the gap between a prompt and its counterfactual.

A neuron's score is row . (its own activation - the counterfactual's): what the target loses if it
is patched, as far as the row is right. The rules are where rows come from:

    half         the frozen network, a gated product's two factors with a half each
    gate         the frozen network, the gate's side frozen (frozen.py has both)
    gradient     the target's gradient at the prompt: attribution patching (Nanda 2023)
    integrated   the mean gradient on the way from the counterfactual's embeddings to the prompt's,
                 z' + k/m (z - z') for k = 1 … m: EAP-IG (Hanna et al. 2024)
    difference   no row: |own activation - the counterfactual's|
    random       no row: drawn with a seed

The first four are in the target's units and are predictions; the last two only order.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..model.batch import Batch
from ..model.edits import patch
from ..model.site import Site
from ..model.subject import Subject
from .ablate import END, Neurons
from .frozen import rows as frozen_rows
from .target import Target
from .tasks import Coded, Read

EMBEDDED = Site("resid_pre", 0)


def scores(
    subject: Subject,
    pair: Coded,
    neurons: Neurons,
    own: Float[Tensor, "2 n"],
    read: Read,
    rules: Sequence[str],
    steps: int = 5,
    seed: int | Sequence[int] = 0,
) -> dict[str, Float[Tensor, " n"]]:
    """By rule, the score of every neuron at every position.

    Args:
        own: the activations of the prompt and of the counterfactual.
        steps: m of the integrated gradients.
        seed: of the random order.
    """
    change = own[0] - own[1]
    found: dict[str, Tensor] = {}
    for rule in rules:
        if rule == "difference":
            found[rule] = change.abs()
        elif rule == "random":
            found[rule] = _drawn(neurons.total, seed)
        else:
            found[rule] = rows(subject, pair, neurons, read, rule, steps) * change
    return found


def rows(
    subject: Subject, pair: Coded, neurons: Neurons, read: Read, rule: str, steps: int = 5
) -> Float[Tensor, " n"]:
    """The target's row at every neuron of the prompt, by a rule that predicts."""
    if rule == "gradient":
        return gradient(subject, pair.ids[:1], neurons, read)
    if rule == "integrated":
        start = subject.capture(pair.ids, [EMBEDDED])[EMBEDDED]
        share = torch.arange(1, steps + 1).to(start)[:, None, None] / steps
        path = start[1] + share * (start[0] - start[1])
        with subject.edited(patch(EMBEDDED, path)):
            return gradient(subject, pair.ids[:1].expand(steps, -1), neurons, read)
    target = Target(
        "target less other", torch.tensor([pair.target, pair.other]), torch.tensor([1.0, -1.0])
    )
    batch = Batch(pair.ids[:1], torch.ones_like(pair.ids[:1], dtype=torch.bool))
    found = frozen_rows(subject, batch, target, neurons.sites, rule)  # type: ignore[arg-type]
    return neurons.flat(found).cpu()


def gradient(
    subject: Subject, ids: Int[Tensor, "rows pos"], neurons: Neurons, read: Read
) -> Float[Tensor, " n"]:
    """The gradient of the target at the neurons, its mean over the rows."""
    linked = subject.linked(ids, [*neurons.sites, END])
    value = read(linked.pop(END)[:, -1]).mean()
    found = torch.autograd.grad(value, [linked[site] for site in neurons.sites])
    by_site = dict(zip(neurons.sites, found, strict=True))
    return neurons.flat(by_site).sum(0).cpu()  # each row's gradient has the mean's 1/rows in it


def order(score: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Neurons by score, the highest first; of equals the first."""
    return score.argsort(descending=True, stable=True)


def _drawn(total: int, seed: int | Sequence[int]) -> Float[Tensor, " n"]:
    import numpy as np

    return torch.from_numpy(np.random.default_rng(seed).random(total))
