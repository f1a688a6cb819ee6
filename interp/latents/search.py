"""Questions to a stored survey: latents by word, by density, and what one row of it says.

No torch and no model; `survey.py` documents the tables.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from ..errors import UserError
from ..runs.query import query, word_ids
from ..runs.store import Run, Store, open_run

By = Literal["promotes", "lowers", "fires"]
"""How a latent is of a word: its decoder row raises it, lowers it, or it fires on it."""
Order = Literal["dense", "rare"]
SHRINK = 5
"""Firings on other tokens that are added to a share, so that latents that hardly fire do not
lead."""
STUDY = "saes.survey"


def open_survey(where: Path | None = None, store: Store | None = None) -> Run:
    """The survey in a folder; without one, the newest in the store."""
    if where is not None:
        return open_run(where, STUDY)
    store = store or Store()
    missing = f"no survey in {store.root}: make one with `interp saes survey`"
    return store.newest(STUDY, missing)


def survey_of(saes: str, latent: int, store: Store) -> Run | None:
    """The newest survey that has a latent; None without one.

    Args:
        saes: the fingerprint of the SAE (`saes_fingerprint`).
    """
    for run in store.looked_through(STUDY)[0]:
        same = run.manifest["fingerprints"].get("saes") == saes
        if same and latent < run.metrics["latents"]:
            return run
    return None


def by_word(
    survey: Run, word: str, by: By = "promotes", exact: bool = False, limit: int = 20
) -> pd.DataFrame:
    """Latents of a word, the best first.

    Args:
        word: any form of it; with `exact`, one token's exact text.
        by: "promotes" or "lowers": the word is among the top or bottom tokens, ranked by its place
            (`rank`, from 1), then by how far the first token stands out (`z`). "fires": ranked by
            the firings on it of all the latent's firings and SHRINK more; `share` is of all its
            firings.

    Raises:
        UserError: as `word_ids`; no latent is of it.
    """
    if by not in get_args(By):
        raise UserError(f"search by {', '.join(get_args(By))}, not by '{by}'")
    ids = f"[{', '.join(map(str, word_ids(survey, word, exact)))}]::INTEGER[]"
    table = survey.sql("latents")
    if by == "fires":
        rows = query(
            f"""
            SELECT latent, sum(times)::BIGINT AS times, sum(times) / any_value(count) AS share
            FROM (SELECT latent, count, unnest(fires_on) AS id, unnest(fires_times) AS times
                  FROM {table})
            WHERE list_contains({ids}, id)
            GROUP BY latent
            ORDER BY sum(times) / (any_value(count) + {SHRINK}) DESC, latent LIMIT {_limit(limit)}
            """
        )
    else:
        side = "top" if by == "promotes" else "bottom"
        rows = query(
            f"""
            SELECT latent, min(rank) AS rank, any_value(z) AS z
            FROM (SELECT latent, {side}_z AS z, unnest({side}_ids) AS id,
                      generate_subscripts({side}_ids, 1) AS rank FROM {table})
            WHERE list_contains({ids}, id) GROUP BY latent
            ORDER BY rank, z DESC, latent LIMIT {_limit(limit)}
            """
        )
    if rows.empty:
        told = {
            "promotes": "is among the top tokens of no latent",
            "lowers": "is among the bottom tokens of no latent",
            "fires": "is among the counted tokens of no latent",
        }
        raise UserError(f"'{word}' {told[by]} of this survey: try another --by")
    return described(survey, rows)


def by_density(
    survey: Run, low: float = 0.0, high: float = 1.0, order: Order = "dense", limit: int = 20
) -> pd.DataFrame:
    """Latents that fire on a share of the tokens from `low` to `high`, the densest or rarest first.
    Those that never fire are asked for by a `high` of 0.

    Raises:
        UserError: no latent is as dense.
    """
    if order not in get_args(Order):
        raise UserError(f"order by {' or '.join(get_args(Order))}, not by '{order}'")
    if not 0 <= low <= high <= 1:
        raise UserError(f"densities from {low:g} to {high:g}: give two of 0 to 1, the lower first")
    rows = query(
        f"SELECT latent FROM {survey.sql('latents')} "
        "WHERE density BETWEEN $low AND $high AND (density > 0 OR $high = 0) "
        f"ORDER BY density {'DESC' if order == 'dense' else 'ASC'}, latent LIMIT {_limit(limit)}",
        {"low": low, "high": high},
    )
    if rows.empty:
        raise UserError(f"no latent of this survey has a density from {low:g} to {high:g}")
    return described(survey, rows)


def _limit(limit: int) -> int:
    return max(0, min(limit, 10**9))


def described(survey: Run, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows that name a `latent` each, with its density, mean, max, and what it raises (`top`),
    lowers (`bottom`) and fires on (`fires`) as texts."""
    numbers = ", ".join(map(str, rows["latent"].astype(int)))
    found = query(
        "SELECT latent, density, mean, max, top_ids, bottom_ids, fires_on "
        f"FROM {survey.sql('latents')} WHERE latent IN ({numbers or 'NULL'})"
    )
    ids = {int(i) for name in ("top_ids", "bottom_ids", "fires_on") for i in _each(found[name])}
    texts = tokens(survey, ids)
    for name, column in (("top", "top_ids"), ("bottom", "bottom_ids"), ("fires", "fires_on")):
        found[name] = [[texts[int(i)] for i in _list(row)] for row in found[column]]
    found = found.drop(columns=["top_ids", "bottom_ids", "fires_on"])
    return rows.merge(found, "left", "latent")


def tokens(survey: Run, ids: set[int]) -> dict[int, str]:
    """The texts of some token ids; one that is no token of the tokenizer is `#id`."""
    numbers = ", ".join(map(str, sorted(ids)))
    found = query(
        f"SELECT id, token FROM {survey.sql('vocabulary')} WHERE id IN ({numbers or 'NULL'})"
    )
    named = dict(zip(found["id"].astype(int), found["token"], strict=True))
    return {i: named.get(i, f"#{i}") for i in ids}


def _each(column: pd.Series) -> list[int]:
    return [i for row in column for i in _list(row)]


def _list(row: Any) -> list[int]:
    """A list from DuckDB; none where the run has none."""
    return list(row) if hasattr(row, "__len__") else []


def densities(survey: Run) -> pd.DataFrame:
    """Every latent's number, density, mean and max: what a picture of all of them needs."""
    return query(f"SELECT latent, density, mean, max FROM {survey.sql('latents')} ORDER BY latent")
