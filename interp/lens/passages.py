"""Passages of one length, each of another document: what lenses are fitted and compared on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from ..errors import UserError
from ..text.contexts import Feeder, corpus_rows


def passages(fed: Feeder, corpus: str, length: int, count: int, after: int = 0) -> list[list[int]]:
    """The first whole row of ids of each of `count` documents that have one.

    Args:
        corpus: a text file, .jsonl, .parquet, folder or saved dataset; "" for the installed
            Python's documentation and code.
        after: so many of such documents at the corpus' beginning are passed over.

    Raises:
        UserError: the corpus has too few.
    """
    found = list(islice(_of_each(fed, corpus, length), after, after + count))
    if len(found) < count:
        raise UserError(
            f"the corpus has {len(found)} documents with passages of {length} tokens"
            f"{f' after the first {after}' if after else ''}: ask for fewer than {count}, or give "
            "more text"
        )
    return found


def _of_each(fed: Feeder, corpus: str, length: int) -> Iterator[list[int]]:
    seen: set[int] = set()
    for document, ids in corpus_rows(fed, corpus, length):
        if len(ids) == length and document not in seen:
            seen.add(document)
            yield ids


def batches(rows: list[list[int]], size: int) -> list[list[list[int]]]:
    """Rows, `size` at a time."""
    return [rows[i : i + size] for i in range(0, len(rows), size)]
