"""How much slower scoring a corpus is than the bare forward pass up to the feature's layer.

The bare pass is plain transformers: the same weights, only the layers before the feature's, no
hook, no head, nothing kept. The published notebooks scored about 90 tokens/s on a GPU, with every
hook of every layer copied to the host.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import torch

from ..directions import Directions
from ..errors import UserError
from ..model.bare import first_layers
from ..model.subject import Subject, open_subject
from ..timing import Pair, ratio_of, turns_of
from .model_weights import StackedWeights
from .observables import Observable
from .paths import Node, path_feature
from .scoring import as_directions, corpus_rows, stream_scores


def pair_of(
    subject: Subject,
    model: str,
    directions: Directions,
    rows: Sequence[Sequence[int]],
    batch_size: int = 8,
) -> Pair:
    """Scoring rows of one length, and the bare passes over them."""
    layer = directions.site.layer
    if directions.site.kind != "resid_pre" or not layer:
        raise UserError(f"there is no whole layer before {directions.site}: choose a later feature")
    truncated = first_layers(model, layer, subject.device)
    batches = [
        torch.tensor(rows[start : start + batch_size], device=subject.device)
        for start in range(0, len(rows), batch_size)
    ]

    @torch.no_grad()
    def plain() -> None:
        for batch in batches:
            truncated(input_ids=batch, use_cache=False)

    def score() -> None:
        for _ in stream_scores(subject, rows, directions, batch_size):
            pass

    bare = "the bare forward pass to the same layer"
    return Pair("scoring a corpus with a head's feature", bare, "obsprop", score, plain)


def overhead(
    subject: Subject,
    model: str,
    directions: Directions,
    rows: Sequence[Sequence[int]],
    batch_size: int = 8,
    repeats: int = 5,
) -> dict[str, Any]:
    """Tokens per second of the bare pass and of scoring, in turns, and the ratio of their times."""
    pair = pair_of(subject, model, directions, rows, batch_size)
    turns, tokens = turns_of(pair, repeats), sum(map(len, rows))
    ratio = ratio_of(pair, turns)
    return {
        "tokens": tokens, "layer": directions.site.layer, "features": len(directions),
        "ratio": ratio.ratio, "ratio_cpu": ratio.ratio_cpu,
        "bare_tokens_per_s": tokens / statistics.median(turn.bare_s for turn in turns),
        "score_tokens_per_s": tokens / statistics.median(turn.ours_s for turn in turns),
    }  # fmt: skip


def feature(model: str, head: str = "") -> tuple[Subject, Directions]:
    """A model, and one head's feature of an arbitrary observable.

    Args:
        head: by default one near the end.
    """
    subject = open_subject(model)
    assert subject.weights is not None  # a model by its name comes with its files
    weights, spec = StackedWeights(subject.weights), subject.spec
    head = head or f"{max(spec.n_layers - 4, 1)}.{min(2, spec.n_heads - 1)}"
    observable = Observable("any", torch.tensor([0, 1]), torch.tensor([1.0, -1.0]))
    found = path_feature(weights, observable, (Node.parse(head),))
    return subject, as_directions(weights, [found], "obsprop.speed")


def pairs(model: str) -> list[Pair]:
    """For `interp bench all`."""
    subject, directions = feature(model)
    return [pair_of(subject, model, directions, corpus_rows(subject, None, 1024))]


def measure(model: str, head: str, tokens: int, batch_size: int = 8) -> dict[str, Any]:
    """`overhead` of one head's feature over the default corpus."""
    subject, directions = feature(model, head)
    rows = corpus_rows(subject, None, tokens)
    return overhead(subject, model, directions, rows, batch_size)
