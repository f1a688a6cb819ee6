"""A text's tokens, each with the score of a direction or latent, as `directions.figures` draws
them."""

from __future__ import annotations

import pandas as pd

from ..directions import Directions
from ..errors import UserError
from ..progress import log
from .passed import Passed

MOST = 20
"""Directions of a set that are scored."""


def scored(passed: Passed, directions: Directions) -> pd.DataFrame:
    """A row a direction (of the first MOST) and token: `name`, `text` (its number), `position`,
    `token`, `score`: what its reading makes of the activation at the site where it is read.

    Raises:
        UserError: the model has no such site, or the directions have no score or another width.
    """
    directions.note_model(passed.opened.subject.weights)
    if len(directions) > MOST:
        log.warning("only the first %s of %s directions are scored", MOST, f"{len(directions):,}")
    some = directions.pick(list(range(min(len(directions), MOST))))
    site = some.read_at
    if site not in passed.seen:
        subject = passed.opened.subject
        x = subject.capture(passed.batch, [site])[site][0].cpu()
    else:
        x = passed.seen[site]
    if x.shape[0] != len(passed):
        raise UserError(f"{site} has no activation at each token: give directions of another site")
    scores = some.scores(x.flatten(1))
    rows = [
        {"name": name, "text": n, "position": at, "token": token, "score": float(scores[at, n])}
        for n, name in enumerate(some.names)
        for at, token in enumerate(passed.tokens)
    ]
    return pd.DataFrame(rows)
