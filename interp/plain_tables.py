"""Parquet files and Arrow streams that anyone may have written: every value is checked before it is
read, for Arrow itself trusts offsets and lengths, and reads elsewhere in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow

REPLACE = "replace it or leave it out"
MOST = 2**27
"""Values of a table that is read at once: 1 GiB of numbers. A file of 3 MB can hold 150 million
rows of one number."""


def parquet_batches(
    path: Path, columns: Sequence[str], fix: str = REPLACE, rows: int = 256
) -> Iterator[pyarrow.RecordBatch]:
    """The rows of a Parquet file; of the columns named those that it has, or all if it has none.

    Raises:
        UserError: it cannot be read, while iterating too.
    """
    import pyarrow.parquet

    with reading(path, fix), pyarrow.parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        chosen = [name for name in columns if name in names] or names
        yield from map(_checked, file.iter_batches(batch_size=rows, columns=chosen))


def stream_batches(path: Path, fix: str = REPLACE) -> Iterator[pyarrow.RecordBatch]:
    """The rows of an Arrow stream, as `datasets` saves them.

    Raises:
        UserError: it cannot be read, while iterating too.
    """
    import pyarrow

    with reading(path, fix), pyarrow.memory_map(str(path)) as file:
        yield from map(_checked, pyarrow.ipc.open_stream(file))


def read_table(path: Path, rows: int, fix: str = REPLACE) -> pd.DataFrame:
    """A small Parquet file.

    Args:
        rows: how many it must have; a file of some bytes can have a billion.

    Raises:
        UserError: it cannot be read, or has another number of rows.
    """
    import pyarrow.parquet

    with reading(path, fix), pyarrow.parquet.ParquetFile(path) as file:
        if file.metadata.num_rows != rows:
            raise UserError(f"{path} has {file.metadata.num_rows} rows, not {rows}: {fix}")
        table = file.read()
        table.validate(full=True)
        # what the file says of pandas is not asked: it may say anything
        frame: pd.DataFrame = table.to_pandas(ignore_metadata=True)
    return frame.drop(columns=[name for name in frame if str(name).startswith("__index_level_")])


def check_values(path: Path, fix: str = REPLACE) -> None:
    """Raise UserError for a Parquet file of more than `MOST` values."""
    import pyarrow.parquet

    about = pyarrow.parquet.read_metadata(path)
    groups = map(about.row_group, range(about.num_row_groups))
    held = sum(each.column(i).num_values for each in groups for i in range(each.num_columns))
    if held > MOST:
        raise UserError(f"{path} holds {held:,} values, and at most {MOST:,} are read: {fix}")


@contextmanager
def reading(path: Path, fix: str) -> Iterator[None]:
    """A file that Arrow reads: what it complains of is a UserError."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} cannot be read ({reason}): {fix}") from error


def _checked(batch: pyarrow.RecordBatch) -> pyarrow.RecordBatch:
    import pyarrow

    batch.validate(full=True)
    names = batch.schema.names  # raises UnicodeDecodeError
    if twice := [name for name in names if names.count(name) > 1]:
        raise pyarrow.ArrowInvalid(f"it has two columns '{twice[0]}'")
    return batch
