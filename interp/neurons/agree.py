"""Agreement of two models' atlases: how often the same neuron has the same first token.

Source: Davies, 'Decoding specialised feature neurons…': 75.4 % between Llama-3.1-8B's base and
instruct models. A neuron agrees on a side when the strings of its first tokens are equal. Chance is
the agreement of independent choices with each atlas's own token frequencies, the sum over tokens of
p_A(token) p_B(token), by layer, kind and side.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..errors import UserError
from ..runs.store import Run
from .search import has_words, query

_GROUPS = "layer, kind, side"
_AGREEMENT = f"""
WITH a AS (SELECT {_GROUPS}, neuron, tokens[1] AS token FROM {{a}}),
     b AS (SELECT {_GROUPS}, neuron, tokens[1] AS token FROM {{b}}),
both_have AS (
    SELECT {_GROUPS}, count(*) AS neurons, avg((a.token = b.token)::INT) AS agreement
    FROM a JOIN b USING (layer, kind, side, neuron) GROUP BY {_GROUPS}
),
pa AS (SELECT {_GROUPS}, token, count(*) AS n FROM a GROUP BY ALL),
pb AS (SELECT {_GROUPS}, token, count(*) AS n FROM b GROUP BY ALL),
luck AS (SELECT {_GROUPS}, sum(pa.n * pb.n) AS pairs
         FROM pa JOIN pb USING (layer, kind, side, token) GROUP BY ALL)
SELECT {_GROUPS}, neurons, agreement, coalesce(pairs, 0) / neurons ** 2 AS chance
FROM both_have LEFT JOIN luck USING ({_GROUPS}) ORDER BY {_GROUPS}
"""


def agreement(a: Run, b: Run) -> pd.DataFrame:
    """By layer, kind and side: `neurons`, and `agreement` and `chance` from 0 to 1.

    Raises:
        UserError: the models differ in shape, or only one has a tokenizer; the atlases differ in
            their norm, or have no kind of neuron in common.
    """
    ours, theirs = a.manifest["model"], b.manifest["model"]
    for size in ("n_layers", "d_mlp"):
        if ours[size] != theirs[size]:
            raise UserError(
                f"the models differ in {size} ({ours[size]} and {theirs[size]}): agreement "
                "compares neuron by neuron"
            )
    norms = a.config["norm"], b.config["norm"]
    if norms[0] != norms[1]:
        raise UserError(
            f"the atlases have different norms ({norms[0]} and {norms[1]}): make both with the "
            "same --norm"
        )
    if has_words(a) != has_words(b):
        raise UserError("only one of the models has a tokenizer: their tokens cannot be compared")
    table = query(_AGREEMENT.format(a=a.sql("neurons"), b=b.sql("neurons")))
    if table.empty:
        raise UserError("the two atlases have no kind of neuron in common")
    return table


def summary(table: pd.DataFrame) -> dict[str, float]:
    """Agreement and chance over all rows of `agreement`, weighted by neurons; and by kind."""

    def mean(part: pd.DataFrame, column: str) -> float:
        return round(float(np.average(part[column], weights=part["neurons"])), 6)

    means = {name: mean(table, name) for name in ("agreement", "chance")}
    kinds = table.groupby("kind")
    return means | {f"agreement_{kind}": mean(part, "agreement") for kind, part in kinds}
