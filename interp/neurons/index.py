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
from ..plain_tables import reading
from ..runs.query import query
from ..runs.store import Run, open_run, read_parquet

Rows = Int[np.ndarray, " rows"]
"""Rows of an atlas by number, from 0, through its files in their order."""


_COLUMNS = {
    "files": ("name", "rows"),
    "random": ("score", "coherence"),
    "steps": ("of", "at", "q"),
    "histograms": ("statistic", "layer", "kind", "value", "count"),
}


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
        """A small table: files, random, steps, histograms.

        Raises:
            UserError: it has not the columns that it should have.
        """
        table = self._run.table(f"index/{name}")
        if lacking := set(_COLUMNS[name]) - set(table):
            raise UserError(self._damaged(f"index/{name} has no {', '.join(sorted(lacking))}"))
        return table

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
        path, most = self._part("postings"), count if limit is None else min(count, limit)
        if not 0 <= start <= start + count <= pq.read_metadata(path).num_rows:
            raise UserError(self._damaged(f"index/words has '{text}' where there are no rows"))
        rows: Rows = self._taken(path, np.arange(start, start + most))["row"].to_numpy()
        return rows.astype(int)

    def wide(self, rows: Rows) -> pa.Table:
        """Rows with all their columns, in the order of their numbers."""
        files, rows = self.table("files"), np.sort(rows)
        ends = files["rows"].to_numpy(int).cumsum()
        tables: list[pa.Table] = []
        for name, first, end in zip(files["name"], [0, *ends[:-1]], ends, strict=True):
            inside = rows[np.searchsorted(rows, first) : np.searchsorted(rows, end)] - first
            if len(inside) or (end == ends[-1] and not tables):  # an empty table has columns too
                tables.append(self._taken(self._atlas.part(f"neurons/{name}"), inside))
        return pa.concat_tables(tables)

    def _taken(self, path: Path, rows: Rows) -> pa.Table:
        """Rows of a table by their ascending numbers; only their row groups are read."""
        with reading(path, "make the atlas again"), pq.ParquetFile(path) as file:
            about = file.metadata
            sizes = np.array([about.row_group(i).num_rows for i in range(about.num_row_groups)])
            ends = sizes.cumsum()
            if len(rows) and rows[-1] >= ends[-1]:
                raise UserError(self._damaged(f"{path} has not the rows that it names"))
            group = np.searchsorted(ends, rows, side="right")
            groups = np.unique(group)
            table = file.read_row_groups(groups.tolist(), use_threads=len(groups) > 8)
            table.validate(full=True)  # a run may come from anybody
        before = np.zeros(len(sizes), int)  # rows that were read before those of a group
        before[groups] = np.cumsum(sizes[groups]) - sizes[groups]
        return table.take(pa.array(rows - (ends - sizes)[group] + before[group]))

    def _damaged(self, what: str) -> str:
        return f"the search index in {self._run.path} is damaged ({what}): make the atlas again"

    def _part(self, name: str) -> Path:
        return self._run.part(f"index/{name}.parquet")
