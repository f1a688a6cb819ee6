"""Which rows of an atlas an answer can be made of, by its search index (`indexing.py`).

The answer is then made of those rows as it would be of all of them (`search.py`), so that it is the
same with an index and without.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int

from ..errors import UserError
from ..model.files import home
from ..runs.query import query
from ..runs.store import Run, open_run, read_parquet

Rows = Int[np.ndarray, " rows"]
"""Rows of an atlas by number, from 0, through its files in their order."""


def index_of(atlas: Run) -> Index | None:
    """An atlas's index: its own, or the one that `interp neurons index` made; None without any.

    Raises:
        UserError: the one that was made is damaged.
    """
    if atlas.has("index/rows"):
        return Index(atlas, atlas)
    folder = kept_at(atlas)
    if not (folder / "manifest.json").is_file():
        return None
    try:
        return Index(atlas, open_run(folder))
    except UserError as error:
        fix = f"`interp neurons index --atlas {atlas.path} --fresh` makes it again"
        raise UserError(f"the index of this atlas is damaged ({error}): {fix}") from error


def kept_at(atlas: Run) -> Path:
    """Where the index of an atlas that has none of its own is kept."""
    return home() / "indexes" / contents(atlas)[:16]


def contents(atlas: Run) -> str:
    """A hash of all that is in an atlas."""
    return hashlib.sha256(json.dumps(atlas.manifest["files"], sort_keys=True).encode()).hexdigest()


class Index:
    """The index of an atlas.

    Args:
        run: the run whose parts it is.
    """

    def __init__(self, atlas: Run, run: Run) -> None:
        self._atlas, self._run = atlas, run

    @property
    def rows(self) -> str:
        """The narrow columns of all rows, as DuckDB reads them; `row` is their number."""
        table = read_parquet([self._part("rows")], "file_row_number = true")
        return f"(SELECT *, file_row_number AS row FROM {table})"

    def table(self, name: str) -> pd.DataFrame:
        """A small table: random, steps, histograms."""
        return self._run.table(f"index/{name}")

    def chosen(self, where: str, asked: dict[str, Any], order: str, limit: int) -> Rows:
        """The first rows in some order that fulfil a condition on narrow columns."""
        sql = f"SELECT row FROM {self.rows} WHERE {where} ORDER BY {order} LIMIT {limit}"
        return query(sql, asked)["row"].to_numpy(int)

    def with_text(
        self, text: str, exact: bool, by: str, limit: int, where: str, asked: dict[str, Any]
    ) -> Rows:
        """The best rows that have a word family, or with `exact` a token, in their lists.

        Args:
            where: a condition on narrow columns; "" for none.
        """
        if by == "score" and not where:
            return self._postings(text, exact, limit)
        rows = self._postings(text, exact)
        hits = pa.table({"row": rows, "place": np.arange(len(rows))})
        order = "place"
        if by != "score":  # NaN is the last, and equal ones stand as the rows do
            order = f"CASE WHEN NOT isnan({by}) THEN {by} END DESC NULLS LAST, row"
        joined = f"{self.rows} JOIN hits USING (row) WHERE {where or 'TRUE'}"
        sql = f"SELECT row FROM {joined} ORDER BY {order} LIMIT {limit}"
        return query(sql, asked, hits=hits)["row"].to_numpy(int)

    def _postings(self, text: str, exact: bool, limit: int | None = None) -> Rows:
        """The rows that have a text in their lists, the highest scores first."""
        words, asked = read_parquet([self._part("words")]), {"text": text, "exact": exact}
        sql = f"SELECT start, count FROM {words} WHERE text = $text AND exact = $exact"
        place = query(sql, asked)
        if place.empty:
            return np.empty(0, int)
        start, count = map(int, place.iloc[0])
        wanted = np.arange(start, start + (count if limit is None else min(count, limit)))
        with pq.ParquetFile(self._part("postings")) as file:
            return _taken(file, wanted)["row"].to_numpy().astype(int)

    def wide(self, rows: Rows) -> pa.Table:
        """Rows with all their columns, in the order of their numbers."""
        files, rows = self.table("files"), np.sort(rows)
        ends = files["rows"].to_numpy(int).cumsum()
        found = []
        for name, first, end in zip(files["name"], [0, *ends[:-1]], ends, strict=True):
            inside = rows[np.searchsorted(rows, first) : np.searchsorted(rows, end)] - first
            if len(inside) or (end == ends[-1] and not found):  # an empty table has columns too
                with pq.ParquetFile(self._atlas.part(f"neurons/{name}")) as file:
                    found.append(_taken(file, inside))
        return pa.concat_tables(found)

    def _part(self, name: str) -> Path:
        return self._run.part(f"index/{name}.parquet")


def _taken(file: pq.ParquetFile, rows: Rows) -> pa.Table:
    """Rows of a Parquet file by their ascending numbers; only their row groups are read."""
    about = file.metadata
    sizes = np.array([about.row_group(i).num_rows for i in range(about.num_row_groups)], int)
    ends = sizes.cumsum()
    group = np.searchsorted(ends, rows, side="right")
    groups = np.unique(group)
    before = (ends - sizes)[group]
    at = np.zeros(len(sizes), int)
    at[groups] = np.cumsum(sizes[groups]) - sizes[groups]
    read = file.read_row_groups(groups.tolist(), use_threads=len(groups) > 8)
    return read.take(pa.array(rows - before + at[group]))
