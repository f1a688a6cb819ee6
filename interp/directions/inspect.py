"""What a direction does in a model: where in a text it fires, and what it makes the model say.

`top_examples` is `scoring.scored` with the text beside the scores; `steered` is, for every
strength, one row of

    with subject.edited(directions.steer(row, scale)):
        subject.logits(batch), subject.generate(batch)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
from torch import Tensor

from ..errors import UserError
from ..model.batch import Batch
from ..model.subject import Subject
from ..model.vocabulary import token_strings
from ..progress import progress
from .directions import Directions
from .reading import Unread
from .scoring import Others, scored

AROUND = 8
"""Tokens of context before an example; after it there are half as many."""


def top_examples(
    subject: Subject,
    rows: Sequence[Sequence[int]],
    directions: Directions,
    keep: int = 5,
    special: bool = False,
    others: Others | None = None,
) -> pd.DataFrame:
    """The tokens of a corpus with the highest scores of each direction, as its reading gives them.

    One row an example, best first: the direction's `name`, the `mean` and `std` of its score over
    the corpus, `score`, `z` (the score in those units), `row`, `position`, and the text: `before`,
    `token`, `after`. z is the same at any length of the direction; NaN where the score does not
    vary.

    Args:
        special: also BOS, other special tokens and position 0 of each row (behind a BOS that is the
            BOS), which models attend to whatever it is. They are part of neither examples nor mean
            and std otherwise.
        others: workers that score the rows instead of this process.
    """
    directions.note_model(subject.weights)
    scorer, scores = directions.scorer, scored(subject, rows, directions, keep, special, others)
    strings = _strings(subject)
    stats = scores.statistics
    own = stats.mean, stats.var.sqrt(), scores.top.T
    means, stds, top = (x.double().cpu() * scorer.unit for x in own)
    means, top = means + scorer.zero, top + scorer.zero
    made = []
    for n, name in enumerate(directions.names):
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


def scores_on_text(
    subject: Subject, directions: Directions, text: str, row: int = 0
) -> pd.DataFrame:
    """A direction's score at every token of a text: `text` (0), `position`, `token`, `score`. What
    comes before the text by the model's custom (BOS) is its first position.

    Raises:
        UserError: an empty text, no such direction, or one without a score.
    """
    _check_row(directions, row)
    if not text.strip():
        raise UserError("the text is empty: type some")
    directions.note_model(subject.weights)
    batch, one = subject.tokens(text), directions.pick([row])
    site, strings = one.read_at, _strings(subject)
    scores = one.scores(subject.capture(batch, [site])[site].flatten(2))[0, :, 0]
    ids = batch.ids[0].tolist()
    return pd.DataFrame(
        {
            "text": 0,
            "position": range(len(ids)),
            "token": [strings(i) for i in ids],
            "score": scores.tolist(),
        }
    )


def _check_row(directions: Directions, row: int) -> None:
    if not 0 <= row < len(directions):
        raise UserError(f"no direction {row}: there are {len(directions)}, counted from 0")


def steered(
    subject: Subject,
    batch: Batch,
    directions: Directions,
    row: int,
    scales: Sequence[float],
    tokens: int = 24,
) -> pd.DataFrame:
    """What the model says with a multiple of one direction added at all positions.

    One row a strength, 0 first: `scale`, `score` (the direction's own at the last token, NaN where
    it has none), `kl` (from the unsteered distribution of the next token to this one, in nats),
    `next` (the most likely token) and `text` (greedy continuation).
    """
    _check_row(directions, row)
    directions.note_model(subject.weights)
    made, plain, one = [], next_logprobs(subject, batch), directions.pick([row])
    with progress(f"steer along {directions.names[row]}", len(scales) + 1, "texts") as advance:
        for scale in (0.0, *scales):
            with subject.edited(directions.steer(row, scale)):
                score, said = _last_score(subject, batch, one), says(subject, batch, plain, tokens)
            kept = {name: said[name] for name in ("kl", "next", "text")}
            made.append({"scale": scale, "score": score, **kept})
            advance(1, f"{scale:g}")
    return pd.DataFrame(made)


def says(subject: Subject, batch: Batch, plain: Tensor, tokens: int) -> dict[str, Any]:
    """What the model says after the first prompt; edits in scope apply.

    Args:
        plain: `next_logprobs` without them.

    Returns:
        `kl` (from `plain` to the distribution of the next token, in nats), `next` (the most likely
        token), its `probability` and the one `before`, and `text`, a greedy continuation.
    """
    logits, new = subject.said(batch, max(tokens, 1))
    logprobs = logits[0].double().log_softmax(-1)
    best = int(logprobs.argmax())
    return {
        "kl": float((plain.exp() * (plain - logprobs)).sum()),
        "next": _strings(subject)(best),
        "probability": float(logprobs[best].exp()),
        "before": float(plain[best].exp()),
        "text": subject.text(new[0, :tokens]),
    }


def next_logprobs(subject: Subject, batch: Batch) -> Tensor:
    """Log probabilities [d_vocab] of the token after the first prompt; edits in scope apply."""
    return subject.logits(batch)[0, -1].double().log_softmax(-1)


def _last_score(subject: Subject, batch: Batch, direction: Directions) -> float:
    """The score of one direction at the last token of the first text; edits in scope apply."""
    if isinstance(direction.reading, Unread):
        return math.nan
    site = direction.read_at
    return float(direction.scores(subject.capture(batch, [site])[site][0, -1].flatten()))


def _strings(subject: Subject) -> Callable[[int], str]:
    if subject.weights is None:
        return lambda i: f"#{i}"
    strings = token_strings(subject.weights.folder, subject.spec.d_vocab)
    return strings.__getitem__
