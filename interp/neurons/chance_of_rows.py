"""p and q beside the rows of an answer, by an atlas's own random directions (`chance.py`)."""

from __future__ import annotations

from ..runs.query import Record, query, records
from ..runs.store import Run
from .chance import Step, p_values, q_by_steps
from .index import Index, index_of
from .rows import SCORE, has_random


def beside_random(atlas: Run, rows: list[Record]) -> list[Record]:
    """Rows with the p and q of their score and coherence, where the atlas has random directions."""
    if not has_random(atlas):
        return rows
    index = index_of(atlas)
    random = index.sql("random") if index else f"(SELECT {SCORE}, * FROM {atlas.sql('random')})"
    chances = {}
    for of, prefix in (("score", ""), ("coherence", "coherence_")):
        values, null = [row[of] for row in rows], _numbers(of, random)
        chances[f"{prefix}p"] = p_values(values, null)
        steps = _kept_steps(index, of) if index else _steps(atlas, of, null)
        chances[f"{prefix}q"] = q_by_steps(values, steps)
    names = list(chances)
    beside = zip(rows, zip(*chances.values(), strict=True), strict=True)
    return [row | dict(zip(names, values, strict=True)) for row, values in beside]


def _numbers(column: str, table: str) -> list[float]:
    """A column; NaN where there is no number."""
    found = records(f"SELECT {column}::DOUBLE AS value FROM {table}")
    return [row["value"] for row in found]


def _kept_steps(index: Index, of: str) -> list[Step]:
    which = f'FROM {index.sql("steps")} WHERE "of" = $of ORDER BY "at"'
    found = records(f'SELECT "at"::DOUBLE AS "at", q::DOUBLE AS q {which}', {"of": of})
    return [(row["at"], row["q"]) for row in found]


def _steps(atlas: Run, of: str, null: list[float]) -> list[Step]:
    """Those of an atlas without an index, from all its rows."""
    import numpy as np

    from .chance_steps import Steps

    every = query(f"SELECT {SCORE}, coherence FROM {atlas.sql('neurons')}")
    made = Steps(np.array(null))
    made.add(every[of].to_numpy(float))
    return made.steps
