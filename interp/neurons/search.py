"""Questions to a finished atlas, answered by DuckDB over its Parquet files (no torch, no model).

The tables are documented in `atlas.py`. A word's *score* in a row is scale-free, in standard
deviations of the row's logits: the z of the word's best token there, plus its lead over the best
token of any other word (negative where another word comes first). Beside every score stand p and q:
how often random directions score as much (`chance.py`).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from ..errors import UserError
from ..lens.told import told
from ..model.neuron import NeuronName, parse_neuron
from ..runs.query import query, word_ids
from ..runs.store import Run, Store
from .chance import p_values, q_values

Rank = Literal["score", "coherence"]
STATISTICS = ("z", "margin", "coherence", "kurtosis", "skewness", "norm")
"""Columns of an atlas that rank or describe a row; one of an earlier version may lack some."""
_WORD = r"regexp_full_match(trim({}), '\p{{L}}{{3,}}')"
"""SQL: a token that is a word, or part of one, of at least three letters."""
_SCORE = "z::DOUBLE + margin::DOUBLE AS score"
"""SQL: the score of a row's own first word."""
_COLUMNS = "concat_ws('.', layer, kind, neuron) AS name, *"
_WITH_EXPERTS = "concat_ws('.', layer, nullif(expert, ''), kind, neuron) AS name, *"


def open_atlas(where: Path | None = None, store: Store | None = None) -> Run:
    """The atlas in a folder or of a key; without one, the newest in the store."""
    store = store or Store()
    if where is not None:
        return store.find(str(where), "neurons.atlas")
    none = f"no atlas in {store.root}: make one with `interp neurons atlas`"
    return store.newest("neurons.atlas", none)


def find(
    atlas: Run,
    word: str,
    exact: bool = False,
    limit: int = 20,
    by: Rank = "score",
    kinds: Sequence[str] = (),
    up_to: int | None = None,
) -> pd.DataFrame:
    """Neurons that decode to a word, the best first.

    Args:
        atlas: a run of `neurons.atlas`.
        word: any form of it (`dog`, ` Dogs`); with `exact`, one token's exact text.
        exact: match that token alone, not its whole word family.
        limit: the maximum number of rows.
        by: what ranks them: the word's score, or the coherence of the list that it is in.
        kinds: only vectors of these kinds; by default all.
        up_to: only layers up to this one; by default all.

    Returns:
        The atlas's columns with `name`, `rank` (place of the word's best token, from 1),
        `word_z`, `lead`, `score`, and where the atlas has random directions `p`, `q` (of the score)
        and `coherence_p`, `coherence_q`.

    Raises:
        UserError: the word is empty, no token stands for it, or no neuron has it in its lists.
    """
    _check_rank(atlas, by)
    ids = word_ids(atlas, word, exact)
    where = f"z IS NOT NULL AND list_has_any(ids, [{', '.join(map(str, ids))}]::INTEGER[])"
    among = {"kinds": list(kinds or atlas.manifest["kinds"]), "last": up_to}
    table = (
        f"{atlas.sql('neurons')} WHERE list_contains($kinds, kind) "
        "AND layer <= coalesce($last, layer)"
    )
    rows = query(f"SELECT {_columns(atlas)} FROM {table} AND {where}", among)
    if rows.empty:
        k = atlas.config["k"]
        raise UserError(
            f"'{word}' is not among the {k} most extreme tokens of any neuron of this atlas: "
            "make one with a larger --k"
        )
    rows = rows.join(pd.DataFrame([_score(row, set(ids)) for row in rows.to_dict("records")]))
    best = rows.sort_values(by, ascending=False, kind="stable", ignore_index=True)
    return _beside_random(atlas, best.head(limit))


def show(atlas: Run, name: str | NeuronName) -> pd.DataFrame:
    """Both sides of one vector (`29.gate.808`), top first; `score` is z + margin, that of the first
    token's word. With `p`, `q`, `coherence_p`, `coherence_q` as in `find`."""
    neuron = parse_neuron(str(name))
    rows = query(
        f"SELECT {_columns(atlas)}, {_SCORE} FROM {atlas.sql('neurons')} "
        "WHERE layer = $layer AND kind = $kind AND neuron = $neuron AND name = $name "
        "ORDER BY side DESC",
        {"layer": neuron.layer, "kind": neuron.kind, "neuron": neuron.neuron, "name": str(neuron)},
    )
    if rows.empty:
        model, kinds = atlas.manifest["model"], atlas.manifest["kinds"]
        raise UserError(
            f"no {neuron} in this atlas: layers 0..{model['n_layers'] - 1}, kinds "
            f"{', '.join(kinds)}, {_range(model)}"
        )
    return _beside_random(atlas, rows)


def top(
    atlas: Run,
    limit: int = 20,
    layer: int | None = None,
    kind: str | None = None,
    words_only: bool = False,
    by: Rank = "score",
) -> pd.DataFrame:
    """The most specialised rows: those whose first token has the highest score (z + margin), or by
    "coherence" those whose tokens belong together most. With the columns of `show`.

    `words_only` leaves out rows whose first token is not a word of at least three letters.
    """
    _check_rank(atlas, by)
    layers = atlas.manifest["model"]["n_layers"]
    if layer is not None and not 0 <= layer < layers:
        raise UserError(f"no layer {layer} in this atlas: it has layers 0..{layers - 1}")
    rows = query(
        f"SELECT {_columns(atlas)}, {_SCORE} FROM {atlas.sql('neurons')} "
        "WHERE layer = coalesce($layer, layer) AND kind = coalesce($kind, kind) "
        f"AND {_WORD.format('tokens[1]') if words_only else 'TRUE'} "
        f"ORDER BY {by} DESC NULLS LAST, layer, kind, neuron, name, side LIMIT {min(limit, 10**9)}",
        {"layer": layer, "kind": kind},
    )
    if rows.empty:
        raise UserError("no neuron of this atlas fits: check the layer and the kind")
    return _beside_random(atlas, rows)


def _columns(atlas: Run) -> str:
    """SQL: a row's name, and all its columns."""
    return _WITH_EXPERTS if has_experts(atlas) else _COLUMNS


def has_experts(atlas: Run) -> bool:
    """Whether the model has experts, and the atlas the column `expert`."""
    return bool(atlas.manifest["model"].get("n_experts"))


def _range(model: dict[str, Any]) -> str:
    """How a layer's neurons are numbered."""
    if not model.get("n_experts"):
        return f"neurons 0..{model['d_mlp'] - 1}"
    shared = f", shared.0..{model['d_shared'] - 1}" if model["d_shared"] else ""
    return f"experts e0..e{model['n_experts'] - 1} of neurons 0..{model['d_expert'] - 1}{shared}"


def has_random(atlas: Run) -> bool:
    """Whether the atlas has random directions, and so p and q; an earlier version's has none, and
    no coherence."""
    return atlas.has("random/L000")


def statistics(atlas: Run) -> tuple[str, ...]:
    """Those of `STATISTICS` that this atlas has."""
    return tuple(x for x in STATISTICS if has_random(atlas) or x != "coherence")


def lens_note(atlas: Run) -> str:
    """The lens that an atlas was read through, in words; "" for the vectors as they are."""
    about = atlas.manifest.get("lens")
    return f"{told(about)} So are the random directions." if about else ""


def chance_note(atlas: Run) -> str:
    """What p and q are, for those who read them beside a score."""
    if not has_random(atlas):
        return "An earlier version made this atlas: it has no random directions, so no p and q."
    directions = 2 * atlas.config["random"] * len(atlas.manifest["kinds"])
    return (
        f"p is the share of {directions:,} random directions that score as much with their own "
        "best word. q is the share of chance hits among all rows of the atlas that score as much. "
        "coherence_p and coherence_q say the same of the coherence."
    )


def _check_rank(atlas: Run, by: Rank) -> None:
    if by not in get_args(Rank):
        raise UserError(f"rank by {' or '.join(get_args(Rank))}, not by '{by}'")
    if by == "coherence" and not has_random(atlas):
        raise UserError(
            "an earlier version made this atlas, without coherence: make it again with "
            "`interp neurons atlas`"
        )


def _beside_random(atlas: Run, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the p and q of their score and coherence, where the atlas has random directions."""
    if not has_random(atlas):
        return rows
    asked = f"SELECT {_SCORE}, coherence FROM "
    random, every = (query(asked + atlas.sql(name)) for name in ("random", "neurons"))
    chances = {}
    for of, prefix in (("score", ""), ("coherence", "coherence_")):
        null = random[of].to_numpy(float)
        chances[f"{prefix}p"] = p_values(rows[of], null)
        chances[f"{prefix}q"] = q_values(rows[of], every[of].to_numpy(float), null)
    return rows.assign(**chances)


def has_words(atlas: Run) -> bool:
    """Whether the model's tokens are text at all (without a tokenizer they are `#id`)."""
    table, word = atlas.sql("vocabulary"), _WORD.format("token")
    return not query(f"SELECT id FROM {table} WHERE {word} LIMIT 1").empty


def density(atlas: Run, statistic: str, bins: int = 60) -> pd.DataFrame:
    """A statistic's histogram in every layer: layer, kind, bin centre `value`, `count`.

    The bins span the 0.1 to 99.9 percentiles of all rows; what lies outside counts in the outer
    bins."""
    if statistic not in statistics(atlas):
        known = ", ".join(statistics(atlas))
        raise UserError(f"no statistic '{statistic}' in this atlas: choose one of {known}")
    return query(
        f"""
        WITH bounds AS (
            SELECT quantile_cont({statistic}, 0.001) AS low,
                   quantile_cont({statistic}, 0.999) AS high
            FROM {atlas.sql("neurons")}
        ), binned AS (
            SELECT layer, kind, low, high, greatest(least(
                floor(({statistic} - low) / nullif(high - low, 0) * {bins}), {bins - 1}), 0) AS bin
            FROM {atlas.sql("neurons")}, bounds WHERE {statistic} IS NOT NULL
        )
        SELECT layer, kind, low + (coalesce(bin, 0) + 0.5) * (high - low) / {bins} AS value,
               count(*) AS count
        FROM binned GROUP BY ALL ORDER BY ALL
        """
    )


def values_in_layer(atlas: Run, name: str | NeuronName, statistic: str) -> pd.Series:
    """A statistic of all rows of a neuron's layer and kind."""
    neuron = parse_neuron(str(name))
    table, among = atlas.sql("neurons"), {"layer": neuron.layer, "kind": neuron.kind}
    rows = f"SELECT {statistic} AS value FROM {table} WHERE layer = $layer AND kind = $kind"
    return query(rows, among)["value"]


def _score(row: dict[Hashable, Any], ids: set[int]) -> dict[str, float]:
    hits = [i for i, token in enumerate(row["ids"]) if token in ids]
    others = [i for i, token in enumerate(row["ids"]) if token not in ids]
    rival = others[0] if others else len(row["ids"]) - 1

    def z(i: int) -> float:
        behind = abs(float(row["logits"][0]) - float(row["logits"][i]))
        return float(row["z"] - behind / row["std"])

    lead = z(hits[0]) - z(rival)
    return {"rank": hits[0] + 1, "word_z": z(hits[0]), "lead": lead, "score": z(hits[0]) + lead}
