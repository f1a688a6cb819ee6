"""What a direction does in a model: where in a text it fires, and what it makes the model say.

`top_examples` is `project_scores` with the text beside the scores; `steered` is, for every
strength, one row of

    with subject.edited(directions.steer(row, scale)):
        subject.logits(batch), subject.generate(batch)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pandas as pd
from torch import Tensor

from ..errors import UserError
from ..model.batch import Batch
from ..model.readout import levelled
from ..model.subject import Subject
from ..model.vocabulary import token_strings
from ..progress import progress
from ..text.stream import project_scores
from .directions import Directions

AROUND = 8
"""Tokens of context before an example; after it there are half as many."""


def top_examples(
    subject: Subject, rows: Sequence[Sequence[int]], directions: Directions, keep: int = 5
) -> pd.DataFrame:
    """The tokens of a corpus with the highest dot products with each direction.

    One row an example, best first: the direction's `name`, the `mean` and `std` of its score over
    the corpus, `score`, `z` (the score in those units), `row`, `position`, and the text: `before`,
    `token`, `after`. z is the same at any length of the direction; NaN where the score does not
    vary.
    """
    site = directions.site
    near_one, scale = levelled(directions.vectors.float())
    scores = project_scores(subject, rows, {site: near_one}, keep)[site]
    strings = _strings(subject)
    stats = scores.statistics
    own = stats.mean, stats.var.sqrt(), scores.top.T
    means, stds, top = (x.double().cpu() * scale for x in own)
    made = []
    for n, name in enumerate(names(directions)):
        mean, spread = float(means[n]), float(stds[n])
        best = (column[n].tolist() for column in (top.T, scores.rows, scores.positions))
        for score, row, position in zip(*best, strict=True):
            text = [strings(i) for i in rows[row][: position + 1 + AROUND // 2]]
            made.append(
                {
                    **{"name": name, "mean": mean, "std": spread},
                    **{"score": score, "z": (score - mean) / spread if spread else math.nan},
                    **{"row": row, "position": position},
                    "before": "".join(text[max(0, position - AROUND) : position]),
                    **{"token": text[position], "after": "".join(text[position + 1 :])},
                }
            )
    return pd.DataFrame(made)


def steered(
    subject: Subject,
    batch: Batch,
    directions: Directions,
    row: int,
    scales: Sequence[float],
    tokens: int = 24,
) -> pd.DataFrame:
    """What the model says with a multiple of one direction added at all positions.

    One row a strength, 0 first: `scale`, `kl` (from the unsteered distribution of the next token to
    this one, in nats), `next` (the most likely token) and `text` (greedy continuation).
    """
    if not 0 <= row < len(directions):
        raise UserError(f"no direction {row}: there are {len(directions)}, counted from 0")
    made, plain = [], next_logprobs(subject, batch)
    with progress(f"steer along {names(directions)[row]}", len(scales) + 1, "texts") as advance:
        for scale in (0.0, *scales):
            with subject.edited(directions.steer(row, scale)):
                logprobs = next_logprobs(subject, batch)
                text = subject.text(subject.generate(batch, tokens)[0])
            kl = float((plain.exp() * (plain - logprobs)).sum())
            said = _strings(subject)(int(logprobs.argmax()))
            made.append({"scale": scale, "kl": kl, "next": said, "text": text})
            advance(1, f"{scale:g}")
    return pd.DataFrame(made)


def next_logprobs(subject: Subject, batch: Batch) -> Tensor:
    """Log probabilities [d_vocab] of the token after the first prompt; edits in scope apply."""
    return subject.logits(batch)[0, -1].double().log_softmax(-1)


def names(directions: Directions) -> list[str]:
    """A label for each direction: its `name` where the index has one, its number elsewhere."""
    index = directions.index
    labels = index["name"] if "name" in index.columns else range(len(index))
    return [str(name) for name in labels]


def _strings(subject: Subject) -> Callable[[int], str]:
    if subject.weights is None:
        return lambda i: f"#{i}"
    strings = token_strings(subject.weights.folder, subject.spec.d_vocab)
    return strings.__getitem__
