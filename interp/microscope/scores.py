"""A text's tokens, each with the score of a direction or latent, as `directions.figures` draws
them."""

from __future__ import annotations

import pandas as pd

from ..directions import Directions
from ..errors import UserError
from ..model.prompting import Bos
from ..progress import log
from .passed import Passed, passed

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


def scored_text(seen: Passed, text: str, directions: Directions, bos: Bos) -> pd.DataFrame:
    """As `scored`, of a text that is fed as the directions ask for it.

    Args:
        seen: a pass of the text, which is enough where it is fed so.
        bos: what goes before the text where it is scored.

    Raises:
        UserError: as `scored`, and as `passed`.
    """
    with seen.opened.fed(bos) as subject:
        same = subject.tokens(text).ids.tolist() == seen.batch.ids.tolist()
        return scored(seen if same else passed(seen.opened, text), directions)
