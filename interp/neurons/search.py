"""Questions to a finished atlas, answered by DuckDB over its Parquet files (no torch, no model).

The tables are documented in `atlas.py`. A word's *score* in a row is scale-free, in standard
deviations of the row's logits: the z of the word's best token there, plus its lead over the best
token of any other word (negative where another word comes first). Beside every score stand p and q:
how often random directions score as much (`chance.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..errors import UserError
from ..lens.told import told
from ..model.neuron import NeuronName, parse_neuron
from ..model.vocabulary import word_family
from ..runs.query import Question, Record, query, records, word_ids
from ..runs.store import Run, Store
from .chance_of_rows import beside_random
from .index import Index, Rows, index_of
from .rows import BINS, SCORE, STATISTICS, WORD, has_random
from .rows import density as density_of

if TYPE_CHECKING:
    import pandas as pd

Rank = Literal["score", "coherence"]


def open_atlas(where: Path | None = None, store: Store | None = None) -> Run:
    """The atlas in a folder or of a key; without one, the newest in the store."""
    store = store or Store()
    if where is not None:
        return store.find(str(where), "neurons.atlas")
    none = f"no atlas in {store.root}: make one with `interp neurons atlas`"
    return store.newest("neurons.atlas", none)


@Question
def find(
    atlas: Run,
    word: str,
    exact: bool = False,
    limit: int = 20,
    by: Rank = "score",
    kinds: Sequence[str] = (),
    up_to: int | None = None,
    layer: int | None = None,
) -> list[Record]:
    """Neurons that decode to a word, the best first.

    Args:
        atlas: a run of `neurons.atlas`.
        word: any form of it (`dog`, ` Dogs`); with `exact`, one token's exact text.
        exact: match that token alone, not its whole word family.
        limit: the maximum number of rows.
        by: what ranks them: the word's score, or the coherence of the list that it is in.
        kinds: only vectors of these kinds; by default all.
        up_to: only layers up to this one; by default all.
        layer: only this layer; by default all.

    Returns:
        The atlas's columns with `name`, `rank` (place of the word's best token, from 1),
        `word_z`, `lead`, `score`, and where the atlas has random directions `p`, `q` (of the score)
        and `coherence_p`, `coherence_q`.

    Raises:
        UserError: the word is empty, no token stands for it, or no neuron has it in its lists.
    """
    _check_rank(atlas, by)
    _check_among(atlas, limit, kinds, layer, up_to)
    ids = word_ids(atlas, word, exact)
    asked = {"kinds": list(kinds or atlas.manifest["kinds"]), "last": up_to, "layer": layer}
    among = (
        "list_contains($kinds, kind) AND layer <= coalesce($last, layer) "
        "AND layer = coalesce($layer, layer)"
    )
    filtered = among if kinds or up_to is not None or layer is not None else ""
    text = word if exact else word_family(word)

    def best(index: Index) -> Rows:
        return index.with_text(text, exact, by, limit, filtered, asked if filtered else {})

    hit = f"z IS NOT NULL AND list_has_any(ids, [{', '.join(map(str, ids))}]::INTEGER[])"
    rows = _asked(atlas, f"{among} AND {hit}", asked, best)
    if not rows:
        where = "of these layers and kinds" if filtered else "of this atlas"
        k = atlas.config["k"]
        raise UserError(
            f"'{word}' is not among the {k} most extreme tokens of any neuron {where}: "
            "make one with a larger --k"
        )
    # of a token that is all of its word, too, the atlas has the lead
    whole = not exact or (word_family(word) != "" and word_ids(atlas, word) == ids)
    scored = [row | _score(row, set(ids), whole) for row in rows]
    # a stable sort, NaN last
    ranked = sorted(scored, key=lambda row: (not isnan(row[by]), row[by]), reverse=True)
    return beside_random(atlas, ranked[:limit])


@Question
def show(atlas: Run, name: str | NeuronName) -> list[Record]:
    """Both sides of one vector (`29.gate.808`), top first; `score` is z + margin, that of the first
    token's word. With `p`, `q`, `coherence_p`, `coherence_q` as in `find`."""
    neuron = parse_neuron(str(name))
    asked: dict[str, Any] = neuron._asdict()
    expert = "expert" if has_experts(atlas) else "''"
    place = f"layer = $layer AND kind = $kind AND neuron = $neuron AND {expert} = $expert"

    def of_it(index: Index) -> Rows:
        return index.chosen(place, asked, "row", 10**9)

    rows = _asked(atlas, place, asked, of_it, f", {SCORE}", "side DESC")
    if not rows:
        model, kinds = atlas.manifest["model"], atlas.manifest["kinds"]
        raise UserError(
            f"no {neuron} in this atlas: layers 0..{model['n_layers'] - 1}, kinds "
            f"{', '.join(kinds)}, {_range(model)}"
        )
    return beside_random(atlas, rows)


@Question
def top(
    atlas: Run,
    limit: int = 20,
    layer: int | None = None,
    kind: str | None = None,
    words_only: bool = False,
    by: Rank = "score",
) -> list[Record]:
    """The most specialised rows: those whose first token has the highest score (z + margin), or by
    "coherence" those whose tokens belong together most. With the columns of `show`.

    `words_only` leaves out rows whose first token is not a word of at least three letters.
    """
    _check_rank(atlas, by)
    _check_among(atlas, limit, [kind] if kind else [], layer)
    asked = {"layer": layer, "kind": kind}
    among = "layer = coalesce($layer, layer) AND kind = coalesce($kind, kind)"
    ties = "DESC NULLS LAST, layer, kind, neuron, {}, side"

    def best(index: Index) -> Rows:
        value = by if by != "score" else SCORE.removesuffix(" AS score")
        name = _name(atlas).removesuffix(" AS name") if has_experts(atlas) else "kind"
        words = f"{among} AND word" if words_only else among
        return index.chosen(words, asked, f"{value} {ties.format(name)}", limit)

    words = f"{among} AND {WORD.format('tokens[1]')}" if words_only else among
    order = f"{by} {ties.format('name')} LIMIT {limit}"
    rows = _asked(atlas, words, asked, best, f", {SCORE}", order)
    if not rows:
        raise UserError("no neuron of this atlas fits: check the layer and the kind")
    return beside_random(atlas, rows)


def _asked(
    atlas: Run,
    where: str,
    asked: dict[str, Any],
    choose: Callable[[Index], Rows],
    more: str = "",
    order: str = "",
) -> list[Record]:
    """Rows of an atlas with their names; the index, where there is one, chooses those that come
    into question.

    Args:
        where: a condition in SQL.
        more: further columns.
        order: by default that of the atlas.
    """
    index = index_of(atlas)
    rows = choose(index) if index else []
    if index and not rows:
        return []
    vectors, columns = f"(FROM {atlas.sql('neurons')})", "*"
    if index:
        # materialized, or the condition is put to each file, which costs twice the time
        vectors, columns = f"MATERIALIZED ({index.wide(rows)})", "* EXCLUDE (row)"
        order = order or "row"
    found = f"SELECT {_name(atlas)}, {columns}{more} FROM vectors WHERE {where}"
    ordered = f" ORDER BY {order}" if order else ""
    chosen = records(f"WITH vectors AS {vectors} {found}{ordered}", asked)
    if index and len(chosen) < len(rows):
        raise UserError(index.damaged("it names other rows than those that are asked for"))
    return chosen


def _name(atlas: Run) -> str:
    """SQL: a row's name."""
    expert = "nullif(expert, ''), " if has_experts(atlas) else ""
    return f"concat_ws('.', layer, {expert}kind, neuron) AS name"


def has_experts(atlas: Run) -> bool:
    """Whether the model has experts, and the atlas the column `expert`."""
    return bool(atlas.manifest["model"].get("n_experts"))


def _range(model: dict[str, Any]) -> str:
    """How a layer's neurons are numbered."""
    if not model.get("n_experts"):
        return f"neurons 0..{model['d_mlp'] - 1}"
    shared = f", shared.0..{model['d_shared'] - 1}" if model["d_shared"] else ""
    return f"experts e0..e{model['n_experts'] - 1} of neurons 0..{model['d_expert'] - 1}{shared}"


def statistics(atlas: Run) -> tuple[str, ...]:
    """Those of `STATISTICS` that this atlas has."""
    return tuple(x for x in STATISTICS if has_random(atlas) or x != "coherence")


def lens_note(atlas: Run) -> str:
    """The lens that an atlas was read through, in words; "" for the vectors as they are."""
    about = atlas.manifest.get("lens")
    return f"{told(about)} So are the random directions." if about else ""


def chance_note(atlas: Run, coherence: bool = True) -> str:
    """What p and q are, for those who read them beside a score, and beside a coherence."""
    if not has_random(atlas):
        return "An earlier version made this atlas: it has no random directions, so no p and q."
    directions = 2 * atlas.config["random"] * len(atlas.manifest["kinds"])
    return (
        f"p is the share of {directions:,} random directions that score as much with their own "
        "best word. q is the share of chance hits among all rows of the atlas that score as much."
    ) + (" coherence_p and coherence_q say the same of the coherence." if coherence else "")


def _check_among(atlas: Run, limit: int, kinds: Sequence[str], *layers: int | None) -> None:
    """Raise UserError for rows that an atlas cannot have."""
    if limit < 1:
        raise UserError(f"the limit must be at least 1, not {limit}")
    has, own = atlas.manifest["model"]["n_layers"], atlas.manifest["kinds"]
    if isinstance(kinds, str) or not set(kinds) <= set(own):
        said = kinds if isinstance(kinds, str) else ", ".join(map(str, kinds))
        raise UserError(f"no kind {said} in this atlas: it has {', '.join(own)}")
    for layer in layers:
        if layer is not None and not 0 <= layer < has:
            raise UserError(f"no layer {layer} in this atlas: it has layers 0..{has - 1}")


def _check_rank(atlas: Run, by: Rank) -> None:
    if by not in get_args(Rank):
        raise UserError(f"rank by {' or '.join(get_args(Rank))}, not by '{by}'")
    if by == "coherence" and not has_random(atlas):
        raise UserError(
            "an earlier version made this atlas, without coherence: make it again with "
            "`interp neurons atlas`"
        )


def has_words(atlas: Run) -> bool:
    """Whether the model's tokens are text at all (without a tokenizer they are `#id`)."""
    table, word = atlas.sql("vocabulary"), WORD.format("token")
    return bool(records(f"SELECT id FROM {table} WHERE {word} LIMIT 1"))


def density(atlas: Run, statistic: str, bins: int = BINS) -> pd.DataFrame:
    """A statistic's histogram in every layer: layer, kind, bin centre `value`, `count`.

    The bins span the 0.1 to 99.9 percentiles of all rows; what lies outside counts in the outer
    bins."""
    if statistic not in statistics(atlas):
        known = ", ".join(statistics(atlas))
        raise UserError(f"no statistic '{statistic}' in this atlas: choose one of {known}")
    if bins == BINS and (index := index_of(atlas)):
        own = f"* EXCLUDE (statistic) FROM {index.sql('histograms')} WHERE statistic = $statistic"
        return query(f"SELECT {own}", {"statistic": statistic})
    return density_of(narrow(atlas), statistic, bins)


def narrow(atlas: Run) -> str:
    """SQL: the table with all of an atlas's rows, or that of their narrow columns alone."""
    index = index_of(atlas)
    return index.rows if index else atlas.sql("neurons")


def values_in_layer(atlas: Run, name: str | NeuronName, statistic: str) -> pd.Series:
    """A statistic of all rows of a neuron's layer and kind."""
    neuron = parse_neuron(str(name))
    table, among = narrow(atlas), {"layer": neuron.layer, "kind": neuron.kind}
    rows = f"SELECT {statistic} AS value FROM {table} WHERE layer = $layer AND kind = $kind"
    return query(rows, among)["value"]


def _score(row: Record, ids: set[int], whole: bool) -> dict[str, float]:
    """The score of a row's best token of some.

    Args:
        whole: they are all of a word. If it comes first its lead is the row's margin, with the
            digits that p and q of the atlas were made of.
    """
    hits = [i for i, token in enumerate(row["ids"]) if token in ids]
    others = [i for i, token in enumerate(row["ids"]) if token not in ids]
    rival = others[0] if others else len(row["ids"]) - 1

    def z(i: int) -> float:
        behind = abs(float(row["logits"][0]) - float(row["logits"][i]))
        return float(row["z"] - behind / row["std"])

    lead = row["margin"] if whole and hits[0] == 0 else z(hits[0]) - z(rival)
    return {"rank": hits[0] + 1, "word_z": z(hits[0]), "lead": lead, "score": z(hits[0]) + lead}
