"""How much slower scoring a corpus is than the bare forward pass up to the feature's layer.

The bare pass is plain transformers: the same weights, only the layers before the feature's, no
hook, no head, nothing kept. The published notebooks scored about 90 tokens/s on a GPU, with every
hook of every layer copied to the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from interp.kernels.bench import seconds

from ..directions import Directions
from ..errors import UserError
from ..model.catalog import resolve
from ..model.subject import Subject, open_subject
from .model_weights import StackedWeights
from .observables import Observable
from .paths import Node, path_feature
from .scoring import as_directions, corpus_rows, stream_scores


def overhead(
    subject: Subject,
    model: str,
    directions: Directions,
    rows: Sequence[Sequence[int]],
    batch_size: int = 8,
    repeats: int = 5,
) -> dict[str, Any]:
    """Tokens per second of the bare pass and of scoring, in turns; `ratio` is of their medians,
    `ratio_cpu` of their CPU time, which other programs on the machine hardly touch.

    Args:
        rows: of one length.
    """
    layer = directions.site.layer
    if directions.site.kind != "resid_pre" or not layer:
        raise UserError(f"there is no whole layer before {directions.site}: choose a later feature")
    truncated = _truncated(model, layer, subject.device)
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

    tokens = sum(map(len, rows))
    # in turns, after a round that warms up; medians [work, (by the clock, of CPU time)]
    times = [[seconds(work) for work in (plain, score)] for _ in range(repeats + 1)]
    bare, scored = np.median(times[1:], axis=0)
    return {
        "tokens": tokens, "layer": layer, "features": len(directions),
        "ratio": float(scored[0] / bare[0]), "ratio_cpu": float(scored[1] / bare[1]),
        "bare_tokens_per_s": tokens / float(bare[0]),
        "score_tokens_per_s": tokens / float(scored[0]),
    }  # fmt: skip


def measure(model: str, head: str, tokens: int, batch_size: int = 8) -> dict[str, Any]:
    """`overhead` of one head's feature of an arbitrary observable, over the default corpus."""
    subject = open_subject(model)
    assert subject.weights is not None  # a model by its name comes with its files
    rows = corpus_rows(subject, None, tokens)
    weights = StackedWeights(subject.weights)
    observable = Observable("any", torch.tensor([0, 1]), torch.tensor([1.0, -1.0]))
    feature = path_feature(weights, observable, (Node.parse(head),))
    directions = as_directions(weights, [feature], "obsprop.speed")
    return overhead(subject, model, directions, rows, batch_size)


def _truncated(model: str, layers: int, device: torch.device) -> Any:
    """The base model with its first layers alone."""
    from transformers import AutoModel

    folder = resolve(model)
    whole = AutoModel.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
    whole = whole.eval().to(device)
    stacks = [m for m in whole.children() if isinstance(m, torch.nn.ModuleList)]
    if len(stacks) != 1:
        raise UserError(f"cannot tell which modules of {model} are its layers")
    del stacks[0][layers:]
    return whole
