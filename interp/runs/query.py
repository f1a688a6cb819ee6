"""Questions to a run's tables, answered by DuckDB over its Parquet files (no torch, no model)."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, update_wrapper
from math import nan
from typing import TYPE_CHECKING, Any, Generic, ParamSpec

import duckdb

from ..errors import UserError
from ..model.vocabulary import NO_TEXT, as_text, word_family
from .store import Run

if TYPE_CHECKING:
    import pandas as pd

P = ParamSpec("P")
Record = dict[str, Any]
"""A row: its values by the names of the columns. A missing float is NaN, as in a frame."""
_FLOATS = ("FLOAT", "DOUBLE")
THREADS = 4
"""Threads of DuckDB in a process, at most."""
MEMORY = "512MB"
"""What DuckDB holds at once in a process; the rest goes to a temporary folder."""


def query(sql: str, parameters: dict[str, Any] | None = None) -> pd.DataFrame:
    """What DuckDB answers.

    Raises:
        UserError: a file of the run cannot be read.
    """
    with _answer(sql, parameters) as answer:
        return answer.df()


def records(sql: str, parameters: dict[str, Any] | None = None) -> list[Record]:
    """What DuckDB answers, without pandas: its import costs more than most questions.

    Raises:
        UserError: a file of the run cannot be read.
    """
    with _answer(sql, parameters) as answer:
        names = [name for name, *_ in answer.description]
        none = [nan if kind in _FLOATS else None for _, kind, *_ in answer.description]
        rows = answer.fetchall()
    return [
        {names[i]: none[i] if value is None else value for i, value in enumerate(row)}
        for row in rows
    ]


@contextmanager
def _answer(sql: str, parameters: dict[str, Any] | None) -> Iterator[duckdb.DuckDBPyConnection]:
    asked = {name: _plain(value) for name, value in (parameters or {}).items()}
    try:
        with database(os.getpid()).cursor() as connection:
            yield connection.execute(sql, asked)
    except duckdb.Error as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"the run cannot be read ({reason}): run its command again") from error


def _plain(value: Any) -> Any:
    """A number of numpy's, as a frame gives it, in Python's type."""
    return value.item() if hasattr(value, "item") else value


class Question(Generic[P]):
    """A function that answers with records. Called, it gives them as a frame; `records` gives them
    as they are, for a command that prints them."""

    def __init__(self, records: Callable[P, list[Record]]) -> None:
        self.records = records
        update_wrapper(self, records)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame(self.records(*args, **kwargs))


@cache
def database(process: int) -> duckdb.DuckDBPyConnection:
    """DuckDB in memory, one for all questions of a process; each takes a cursor of its own.

    Args:
        process: the number of this one; a child that was forked off has not its parent's threads.
    """
    # DuckDB makes and removes it; nobody else knows its name
    spilled = f"{tempfile.gettempdir()}/interp-duckdb-{secrets.token_hex(8)}"
    threads = min(THREADS, os.cpu_count() or 1)
    settings: dict[str, Any] = {
        "threads": threads, "memory_limit": MEMORY, "temp_directory": spilled,
    }  # fmt: skip
    return duckdb.connect(config=settings)


def word_ids(run: Run, word: str, exact: bool = False) -> list[int]:
    """Ids of the tokens that stand for a word (with `exact`, of the token with this text), in a
    run that has `vocabulary/tokens` (id, token, word).

    Raises:
        UserError: the word is empty, or no token stands for it.
    """
    if not (word if exact else word_family(word)):
        raise UserError("the search is empty: give a word, such as dog")
    if any("\ud800" <= letter <= "\udfff" for letter in word):  # what a shell makes of other bytes
        raise UserError("the search has half of a character: write it in UTF-8")
    column, value = ("token", word) if exact else ("word", word_family(word))
    table = run.sql("vocabulary")
    found = records(f"SELECT id FROM {table} WHERE {column} = $value ORDER BY id", {"value": value})
    form = "token is exactly" if exact else "single token stands for"
    if not found and _no_text(table):
        last = records(f"SELECT max(id) AS id FROM {table}")[0]["id"]
        raise UserError(f"{NO_TEXT}: its tokens are #0 to #{last}")
    if not found and (meant := as_text(word)) != word:
        raise UserError(f"no {form} '{word}': write it as text, '{meant}'")
    if not found:
        begin = records(
            f"SELECT DISTINCT word FROM {table} "
            "WHERE length(word) > 1 AND starts_with($value, word) "
            "ORDER BY length(word) DESC LIMIT 3",
            {"value": word_family(word)},
        )
        words = ", ".join(repr(row["word"]) for row in begin)
        hint = f"; it begins with {words}" if words else ""
        raise UserError(f"no {form} '{word}' in this model's vocabulary{hint}")
    return [row["id"] for row in found]


def _no_text(vocabulary: str) -> bool:
    """Whether all of the model's tokens are `#id`, as without a tokenizer."""
    of_text = f"SELECT id FROM {vocabulary} WHERE token != concat('#', id) LIMIT 1"
    return not records(of_text)
