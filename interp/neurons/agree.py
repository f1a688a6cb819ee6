"""Agreement of two models' atlases: how often the same neuron has the same first token.

Source: Davies, 'Decoding specialised feature neurons…': 75.4 % between Llama-3.1-8B's base and
instruct models. A neuron agrees on a side when the strings of its first tokens are equal. Chance is
what independent choices with each atlas's own token frequencies would give,
sum over tokens of p_A(token) p_B(token), per layer and kind.
"""

from __future__ import annotations

import pandas as pd

from ..errors import UserError
from ..runs.store import Run
from .search import _query, has_words


def agreement(a: Run, b: Run) -> pd.DataFrame:
    """Per layer, kind and side: `neurons`, `agreement` and `chance`, both from 0 to 1.

    Raises:
        UserError: the atlases have no layer, kind and neuron in common, or differ in shape, norm
            or in having a tokenizer.
    """
    ours, theirs = a.manifest["model"], b.manifest["model"]
    for size in ("n_layers", "d_mlp"):
        if ours[size] != theirs[size]:
            raise UserError(
                f"the models differ in {size} ({ours[size]} and {theirs[size]}): agreement goes "
                "neuron by neuron"
            )
    norms = a.config["norm"], b.config["norm"]
    if norms[0] != norms[1]:
        raise UserError(
            f"the atlases were decoded under different norms ({norms[0]} and {norms[1]}): make "
            "both with the same --norm"
        )
    if has_words(a) != has_words(b):
        raise UserError("only one of the models has a tokenizer: their tokens cannot be compared")
    first = "SELECT layer, kind, side, neuron, tokens[1] AS token FROM {}"
    groups = "layer, kind, side"
    table = _query(
        f"""
        WITH a AS ({first.format(a.sql("neurons"))}),
             b AS ({first.format(b.sql("neurons"))}),
        both_have AS (
            SELECT {groups}, count(*) AS neurons, avg((a.token = b.token)::INT) AS agreement
            FROM a JOIN b USING (layer, kind, side, neuron) GROUP BY {groups}
        ),
        pa AS (SELECT {groups}, token, count(*) / sum(count(*)) OVER (PARTITION BY {groups}) AS p
               FROM a GROUP BY {groups}, token),
        pb AS (SELECT {groups}, token, count(*) / sum(count(*)) OVER (PARTITION BY {groups}) AS p
               FROM b GROUP BY {groups}, token),
        luck AS (SELECT {groups}, sum(pa.p * pb.p) AS chance
                 FROM pa JOIN pb USING (layer, kind, side, token) GROUP BY {groups})
        SELECT {groups}, neurons, agreement, coalesce(chance, 0) AS chance
        FROM both_have LEFT JOIN luck USING ({groups}) ORDER BY {groups}
        """
    )
    if table.empty:
        raise UserError("the two atlases have no kind of neuron in common")
    return table


def summary(table: pd.DataFrame) -> dict[str, float]:
    """Agreement and chance over all rows of `agreement`, weighted by neurons, and per kind."""

    def mean(part: pd.DataFrame, column: str) -> float:
        return float((part[column] * part["neurons"]).sum() / part["neurons"].sum())

    found = {"agreement": mean(table, "agreement"), "chance": mean(table, "chance")}
    for kind, part in table.groupby("kind"):
        found[f"agreement_{kind}"] = mean(part, "agreement")
    return {name: round(value, 6) for name, value in found.items()}
