"""How much of a direction's score an SAE explains, on text: `Directions.split` of a corpus's
activations."""

from __future__ import annotations

import pandas as pd
import torch

from ..model.subject import Subject
from ..saes import Sae, SaeSplit
from ..text.contexts import ContextStream
from .directions import Directions

RIDGE = 1e-3
"""Of the map from an activation to the SAE's error, as elsewhere for few tokens."""


def split_on_text(
    subject: Subject,
    directions: Directions,
    sae: Sae,
    corpus: str = "",
    tokens: int = 8192,
    length: int = 128,
    anyway: bool = False,
) -> pd.DataFrame:
    """The shares of the variance of each direction's score (`Directions.split`): the map to the
    error is fitted on the first half of the tokens, and the shares are of the second.

    Args:
        corpus: as `text.contexts.corpus_rows`; "" for Python's own text.
        length: tokens of a row; the first of each, special ones and massive activations do not
            count.

    Raises:
        UserError: as `Directions.split`.
    """
    none = torch.zeros(1, directions.vectors.shape[1])
    directions.reading.linear(none, none)  # a mistake should not cost the passes
    stream = ContextStream(subject, [directions.site], corpus, length)
    rows, half = stream.rows(), max(tokens // length // 2, 1)
    fitted = stream.activations(rows, half)
    split = SaeSplit.of(sae, fitted, RIDGE)
    return directions.split(split, stream.activations(rows, half, half), anyway)
