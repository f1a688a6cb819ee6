"""How much of a direction's score an SAE explains, on text: `Directions.split` of a corpus's
activations."""

from __future__ import annotations

import pandas as pd
import torch

from ..errors import UserError
from ..model.subject import Subject
from ..saes import Sae, SaeSplit
from ..text.contexts import ContextStream
from .directions import Directions


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
    error is fitted on the first half of the tokens, by least squares without a ridge, and the
    shares are of the second.

    Args:
        corpus: as `text.contexts.corpus_rows`; "" for Python's own text.
        length: tokens of a row, at most the model's context; the first of each, special ones and
            massive activations do not count.

    Raises:
        UserError: as `Directions.split`; too few tokens to determine the map.
    """
    none = torch.zeros(1, directions.vectors.shape[1])
    directions.reading.linear(none, none)  # a mistake should not cost the passes
    directions.note_model(subject.weights)
    length = subject.at_most(length)
    stream = ContextStream(subject, [directions.site], corpus, length)
    rows, half = stream.rows(), max(tokens // length // 2, 1)
    fitted = stream.activations(rows, half)
    if len(fitted) <= fitted.shape[1]:
        raise UserError(
            f"{len(fitted):,} tokens do not determine a linear map of {fitted.shape[1]:,} numbers, "
            "and the shares would mean nothing: give more tokens"
        )
    split = SaeSplit.of(sae, fitted)
    return directions.split(split, stream.activations(rows, half, half), anyway)
