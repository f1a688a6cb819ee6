"""The search index of an atlas: what a question needs, apart from the wide lists of tokens.

It is made with the atlas, from its finished parts and in memory that does not grow with it; for an
atlas without one by `interp neurons index`. `index.py` asks it. The tables:

`index/rows.parquet`, a row for each row of `neurons/*`, in the order of these files:
    layer, kind, expert, neuron, side, z, margin, coherence, kurtosis, skewness, norm as there
    token string       the first token
    word bool          whether that is a word, or part of one, of at least three letters
`index/files.parquet`: name string of each of these files, rows int64
`index/words.parquet`: what can be looked up, and where its rows are in `postings`
    text string        a word family; with `exact`, a token's text
    exact bool, start int64, count int64
`index/postings.parquet`: row int32: for each entry of `words` the rows that have it in their lists,
    those of the highest score first, equal scores in the order of the rows
`index/random.parquet`: score, coherence of the random directions
`index/steps.parquet`: q by the score and by the coherence (`chance_steps.Steps`):
    of string (score | coherence), at float, q float
`index/histograms.parquet`: `search.density` of each statistic: statistic, layer, kind, value, count
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Self

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..plain_tables import parquet_batches
from ..progress import progress
from ..runs.ahead import one_ahead
from ..runs.parts import read_table
from ..runs.query import database, query
from ..runs.store import Run, read_parquet
from ..runs.writer import RunWriter
from .chance_steps import Steps
from .postings import Entries
from .rows import SCORE, STATISTICS, WORD, density, has_random

BATCH = 2**16
"""Rows of an atlas handled at once."""
ROW_GROUP = 2**10
"""Rows of an atlas that are read at once, at least."""
GROUP = 2**17
"""Postings that are read at once, about."""
_ROWS = "index/rows.parquet"
Advance = Callable[[int], None]


@dataclass(frozen=True)
class AtlasTables:
    """What an index is made of: the paths of an atlas's tables, in order."""

    neurons: Sequence[Path]
    random: Sequence[Path]
    """None in an atlas of an early version."""
    vocabulary: Path

    @classmethod
    def of_folder(cls, folder: Path, names: Sequence[str]) -> Self:
        """Those of an atlas that is being made, by the names of the tables of its layers."""
        neurons, random = ([folder / sub / name for name in names] for sub in ("neurons", "random"))
        return cls(neurons, random, folder / "vocabulary/tokens.parquet")

    @cached_property
    def columns(self) -> list[str]:
        return [str(name) for name in pq.read_schema(self.neurons[0]).names]

    @cached_property
    def sizes(self) -> list[int]:
        """The number of rows of each table of neurons."""
        return [pq.read_metadata(path).num_rows for path in self.neurons]

    def batches(self, columns: list[str]) -> Iterator[pa.Table]:
        """The rows of the neurons, `BATCH` of them at a time or a few more."""
        waiting: list[pa.RecordBatch] = []
        for path in self.neurons:
            for batch in parquet_batches(path, columns, "make the atlas again", BATCH):
                waiting.append(batch)
                if sum(map(len, waiting)) >= BATCH:
                    yield pa.Table.from_batches(waiting)
                    waiting = []
        if waiting:
            yield pa.Table.from_batches(waiting)


def tables_of(atlas: Run) -> AtlasTables:
    """The tables of a finished atlas, each as it was written."""
    random = atlas.below("random") if has_random(atlas) else []
    return AtlasTables(
        [atlas.part(name) for name in atlas.below("neurons")],
        [atlas.part(name) for name in random],
        atlas.part("vocabulary/tokens.parquet"),
    )


def write_rows(rows: pa.Table, path: Path | BinaryIO) -> None:
    """Write a table of an atlas in row groups so small that a few rows are read quickly."""
    few = [name for name in rows.schema.names if name in ("layer", "kind", "expert", "side")]
    pq.write_table(rows, path, row_group_size=ROW_GROUP, compression="zstd", use_dictionary=few)


def write_index(out: RunWriter, tables: AtlasTables) -> None:
    """Write the tables of an index that the run does not have yet."""
    has_rows, has_words = (
        all(out.has(f"index/{name}.parquet") for name in names)
        for names in (["rows"], ["words", "postings"])
    )
    rows = sum(tables.sizes)
    with progress("search index", 2 * rows, "rows", (has_rows + has_words) * rows) as advance:
        if not has_rows:
            _write_rows(out, tables, advance)
        if not has_words:
            _write_postings(out, tables, advance)
    names = [path.name for path in tables.neurons]
    out.table_once("index/files", lambda: pd.DataFrame({"name": names, "rows": tables.sizes}))
    out.table_once("index/histograms", lambda: _histograms(out, tables))
    if tables.random:
        random = f"SELECT {SCORE}, coherence FROM {read_parquet(tables.random)}"
        null = out.table_once("index/random", lambda: query(random))
        out.table_once("index/steps", lambda: _steps(out.path / _ROWS, null))


def _write_rows(out: RunWriter, tables: AtlasTables, advance: Advance) -> None:
    names = ("layer", "kind", "expert", "neuron", "side", *STATISTICS)
    narrow = [name for name in names if name in tables.columns]
    asked = (
        f"SELECT {', '.join(narrow)}, tokens[1] AS token, "
        f"coalesce({WORD.format('tokens[1]')}, FALSE) AS word FROM batch"
    )
    with (
        out.part(_ROWS) as making,
        database(os.getpid()).cursor() as connection,
        _Writer(making) as writer,
    ):
        for batch in one_ahead(tables.batches([*narrow, "tokens"])):
            connection.register("batch", batch)
            writer.write(connection.sql(asked).to_arrow_table(), BATCH)
            advance(len(batch))


def _write_postings(out: RunWriter, tables: AtlasTables, advance: Advance) -> None:
    """DuckDB sorts them, on disk where they are many."""
    entries = Entries(read_table(tables.vocabulary))
    with out.part("index/postings.parquet") as making, _sorting() as connection:
        for found, rows in one_ahead(_found(tables, entries)):
            connection.register("batch", found)
            connection.execute("INSERT INTO postings SELECT * FROM batch")
            advance(rows)
        order = "SELECT row FROM postings ORDER BY entry, score DESC, row"
        with _Writer(making) as writer:
            for batch in connection.sql(order).to_arrow_reader(GROUP):
                writer.write(pa.table(batch), GROUP)
    out.table("index/words", entries.table)


def _found(tables: AtlasTables, entries: Entries) -> Iterator[tuple[pa.Table, int]]:
    """The postings of some rows at a time, and how many rows they are of."""
    start = 0
    for batch in one_ahead(tables.batches(["ids", "logits", "z", "margin", "std"])):
        yield entries.postings(batch, start), len(batch)
        start += len(batch)


@contextmanager
def _sorting() -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB with an empty table of postings."""
    with database(os.getpid()).cursor() as connection:
        connection.execute("CREATE TEMP TABLE postings (entry INTEGER, row INTEGER, score DOUBLE)")
        yield connection


class _Writer:
    """A Parquet file being written. What is a number in no order is stored byte by byte: the first
    bytes of all, then the second ones."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        return self

    def write(self, table: pa.Table, group: int) -> None:
        """Rows to follow those before, in row groups of at most `group`."""
        if self._file is None:
            split = [n for n in table.schema.names if n in (*STATISTICS, "row")]
            self._file = pq.ParquetWriter(
                self._path, table.schema, compression="zstd", write_page_checksum=True,
                use_dictionary=[name for name in table.schema.names if name not in split],
                column_encoding=dict.fromkeys(split, "BYTE_STREAM_SPLIT"),
            )  # fmt: skip
        self._file.write_table(table, row_group_size=group)

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def _histograms(out: RunWriter, tables: AtlasTables) -> pd.DataFrame:
    table, has = read_parquet([out.path / _ROWS]), tables.columns
    counts = [density(table, name).assign(statistic=name) for name in STATISTICS if name in has]
    return pd.concat(counts, ignore_index=True)


def _steps(rows: Path, null: pd.DataFrame) -> pd.DataFrame:
    found = {name: Steps(null[name].to_numpy(float)) for name in ("score", "coherence")}
    with pq.ParquetFile(rows) as file:
        for batch in file.iter_batches(BATCH, columns=["z", "margin", "coherence"]):
            z, margin, coherence = (column.to_numpy(False).astype(float) for column in batch)
            found["score"].add(z + margin)
            found["coherence"].add(coherence)
    return pd.concat([each.table.assign(of=of) for of, each in found.items()], ignore_index=True)
