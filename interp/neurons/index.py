"""Which rows of an atlas an answer can be made of, by its search index (`indexing.py`).

The answer is then made of those rows as it would be of all of them (`search.py`), so that it is the
same with an index and without.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..model.files import home
from ..runs.query import records
from ..runs.store import Run, open_run, read_parquet

Rows = list[int]
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

    def sql(self, name: str) -> str:
        """A small table: files, random, steps, histograms."""
        return read_parquet([self._part(name)])

    def chosen(self, where: str, asked: dict[str, Any], order: str, limit: int) -> Rows:
        """The first rows in some order that fulfil a condition on narrow columns."""
        return self._rows(f"{self.rows} WHERE {where} ORDER BY {order} LIMIT {limit}", asked)

    def with_text(
        self, text: str, exact: bool, by: str, limit: int, where: str, asked: dict[str, Any]
    ) -> Rows:
        """The best rows that have a word family, or with `exact` a token, in their lists.

        Args:
            where: a condition on narrow columns; "" for none.
        """
        if by == "score" and not where:
            return self._rows(f"{self._postings(text, exact, limit)} ORDER BY place", {})
        order = "place"
        if by != "score":  # NaN is the last, and equal ones stand as the rows do
            order = f"CASE WHEN NOT isnan({by}) THEN {by} END DESC NULLS LAST, row"
        joined = f"{self.rows} JOIN {self._postings(text, exact)} USING (row)"
        return self._rows(f"{joined} WHERE {where or 'TRUE'} ORDER BY {order} LIMIT {limit}", asked)

    def _rows(self, found: str, asked: dict[str, Any]) -> Rows:
        return [each["row"] for each in records(f"SELECT row FROM {found}", asked)]

    def _postings(self, text: str, exact: bool, limit: int | None = None) -> str:
        """SQL: the rows that have a text in their lists, by `place` the highest scores first."""
        words, asked = self.sql("words"), {"text": text, "exact": exact}
        place = "coalesce(start, -1)::BIGINT AS start, coalesce(count, -1)::BIGINT AS count"
        sql = f"SELECT {place} FROM {words} WHERE text = $text AND exact = $exact"
        start, count = next((tuple(each.values()) for each in records(sql, asked)), (0, 0))
        postings = [self._part("postings")]
        size = records(f"SELECT count(*) AS size FROM {read_parquet(postings)}")[0]["size"]
        if not 0 <= start <= start + count <= size:
            raise UserError(self.damaged(f"index/words has '{text}' where there are no rows"))
        end = start + (count if limit is None else min(count, limit))
        table = read_parquet(postings, "file_row_number = true")
        # only the row groups between are read
        among = f"file_row_number >= {start} AND file_row_number < {end}"
        row = "coalesce(row, -1)::BIGINT AS row"
        return f"(SELECT {row}, file_row_number AS place FROM {table} WHERE {among})"

    def wide(self, rows: Rows) -> str:
        """SQL: rows with all their columns, and their numbers as `row`."""
        sql = f"SELECT name::VARCHAR AS name, rows::BIGINT AS rows FROM {self.sql('files')}"
        numbers, end, tables = sorted(rows), 0, []
        for file in records(f"{sql} WHERE rows >= 0"):
            first, end = end, end + file["rows"]
            inside = numbers[bisect_left(numbers, first) : bisect_left(numbers, end)]
            if inside:
                path = self._atlas.part(f"neurons/{file['name']}")
                tables.append(_taken(path, first, [number - first for number in inside]))
        if not tables:
            raise UserError(self.damaged("it names rows of no file"))
        return " UNION ALL ".join(tables)

    def damaged(self, what: str) -> str:
        """What a user can do about it."""
        return f"the search index in {self._run.path} is damaged ({what}): make the atlas again"

    def _part(self, name: str) -> Path:
        return self._run.part(f"index/{name}.parquet")


def _taken(path: Path, first: int, rows: Rows) -> str:
    """SQL: rows of a table by their numbers, and those numbers counted from the table's `first`;
    only the row groups that hold them are read."""
    table = read_parquet([path], "file_row_number = true")
    among = f"file_row_number IN ({', '.join(map(str, rows))})"
    columns = f"* EXCLUDE (file_row_number), {first} + file_row_number AS row"
    return f"(SELECT {columns} FROM {table} WHERE {among})"
