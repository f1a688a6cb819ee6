"""The coupling coefficient: how one feature's score is expected to move with another's.

Source: Dunefsky & Cohan. For features y1, y2 at one site and x uniform on the sphere |x| = s where
it has the score x.y1 = k,

    E[x.y2] = k C(y1, y2),   C(y1, y2) = y1.y2 / |y1|^2,   C12 C21 = cos^2 t

and x.y2 lies between (|y2| / |y1|) (k cos t -+ |sin t| sqrt(s^2 |y1|^2 - k^2)) for every such x,
whatever its distribution. Real activations are on a sphere behind an RMSNorm, but not uniform on
it, so the measured best-fit slope (naive: `numpy.polyfit(score1, score2, 1)[0]`) may differ from C:
the study `couple` compares the two. C itself is `Directions.coupling`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..directions import Directions
from ..model.site import Site
from ..model.subject import Subject
from ..model.weights import Weights
from ..text.stream import passes
from .evaluate import Array, read_examples
from .model_weights import StackedWeights
from .observables import make_observable
from .paths import Node, PathInPrompt, path_feature
from .propagate import head_vectors
from .scoring import as_directions, feature_reading
from .task_files import Task
from .tasks import Example
from .trace import trace


def coupling_interval(
    y1: Float[Tensor, " d"],
    y2: Float[Tensor, " d"],
    k: Float[Tensor, ...] | float,
    s: Float[Tensor, ...] | float,
) -> tuple[Float[Tensor, ...], Float[Tensor, ...]]:
    """The theorem's least and largest x.y2 where |x| = s and x.y1 = k (any shape, broadcast).

    Raises:
        ValueError: |k| beyond s |y1|, which no such x has.
    """
    y1, y2 = y1.double(), y2.double()
    k, s = (torch.as_tensor(value, dtype=torch.float64) for value in (k, s))
    along = k / y1.norm()
    room = s.square() - along.square()
    if bool((room < -1e-9 * s.square()).any()):
        raise ValueError("a score beyond s |y1|, which no vector of that length has")
    middle = k * (y1 @ y2) / y1.square().sum()
    # |y2| |sin t|, without the loss of digits of sqrt(1 - cos^2)
    across = (y2 - (y1 @ y2) / y1.square().sum() * y1).norm()
    spread = across * room.clamp_min(0).sqrt()
    return middle - spread, middle + spread


def features_by_head(
    subject: Subject, stored: Weights, tasks: Mapping[str, Task], heads: int
) -> dict[str, Directions]:
    """The features of the heads whose vectors are longest for all the tasks: a row a task."""
    weights = StackedWeights(stored)
    observables = [make_observable(task.name, task.observable, stored) for task in tasks.values()]
    starts = torch.stack([weights.start(observable) for observable in observables])
    lengths = head_vectors(weights, starts).vectors.norm(dim=-1)
    ranked = lengths.clamp_min(1e-30).log().mean(0).flatten().argsort(descending=True)
    traces = [trace(subject, weights, task.pair[0]) for task in tasks.values()]
    prompts = [PathInPrompt(one, (one.last, one.last)) for one in traces]
    chosen: dict[str, Directions] = {}
    for number in ranked[:heads].tolist():
        head = Node(*divmod(number, weights.spec.n_heads))
        features = [
            path_feature(weights, observable, (head,), "frozen", prompt)
            for observable, prompt in zip(observables, prompts, strict=True)
        ]
        chosen[str(head)] = as_directions(weights, features, "obsprop.couple", list(tasks))
    return chosen


def read_prompts_and_corpus(
    subject: Subject, sites: Sequence[Site], prompts: Sequence[Example], rows: Sequence[list[int]]
) -> dict[Site, tuple[Array, Array]]:
    """What features at some sites read (behind the norm): at the prompts' words, and at every token
    of the rows but the first, which draws attention whatever it is."""
    read = read_examples(subject, prompts, sites, None, "prompts").activations
    pieces: dict[Site, list[Array]] = {site: [] for site in sites}
    readings = {site: feature_reading(site, subject.spec) for site in sites}
    for source, activations in passes(subject, rows, list(sites), batch_size=8):
        for site, x in activations.items():
            later = readings[site].prepared(x[source.position > 0])
            pieces[site].append(later.double().cpu().numpy())
    return {site: (read[site], np.concatenate(pieces[site])) for site in sites}


def pair_row(
    directions: Directions, i: int, j: int, prompts: Array, corpus: Array
) -> dict[str, Any]:
    """Feature j's slope on feature i: predicted, and measured on activations [tokens, d]."""
    y1, y2 = (directions.vectors[row].double() for row in (i, j))
    row: dict[str, Any] = {
        "site": str(directions.site),
        "coupling": float(directions.coupling(directions)[i, j]),
        "cosine": float(directions.cosine(directions)[i, j]),
    }
    for name, x in (("prompts", prompts), ("corpus", corpus)):
        (own, shared), (_, theirs) = np.cov(x @ y1.numpy(), x @ y2.numpy())
        fit = {"slope": shared / own, "r2": shared**2 / (own * theirs)}  # with an intercept
        row |= {f"{name}_{figure}": float(value) for figure, value in fit.items()}
    tokens = torch.from_numpy(corpus)
    k, other = tokens @ y1, tokens @ y2
    low, high = coupling_interval(y1, y2, k, tokens.norm(dim=1))
    slack = 1e-9 * float(other.abs().max())
    row["inside"] = float(((other >= low - slack) & (other <= high + slack)).double().mean())
    return row
