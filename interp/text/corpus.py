"""Text to run models over: files, folders, saved datasets, and an offline default; rows of ids.

Everything is streamed: no more than one document (of a big text file, one piece) is in memory.
Documents without any text are passed over.
"""

from __future__ import annotations

import hashlib
import itertools
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..model.files import sha256
from ..plain_path import plain_path
from . import documents

if TYPE_CHECKING:
    from ..model.prompting import Prompting

_INTEGERS = {sign + bits for sign in "IU" for bits in ("8", "16", "32", "64")}
_BLOCK = 2**16
"""Stored ids that are read at once."""
_DEFAULT_LAYOUT = 1
"""Which documents the default corpus makes of Python's files; part of its fingerprint."""


def read_corpus(source: str | Path | None, field: str = "text") -> Iterator[str]:
    """The documents of a corpus, always in the same order.

    Args:
        source: a text file, a .jsonl or .parquet file, a folder of any of these (recursively, in
            the order of their names; hidden ones are left out), a folder that
            `datasets.Dataset.save_to_disk` wrote, or None: the installed Python's language
            reference, and its library's docstrings and code (as separate documents), shuffled.
        field: the text's name in .jsonl, .parquet and datasets.

    Raises:
        UserError: nothing there, no text in it, no such field, a broken line. What is wrong with
            the first document is raised at once, the rest while iterating.
    """
    path = None if source is None else _existing(source)
    every = documents.of_path(path, field) if path else documents.of_python()
    texts = (text for text in every if text.strip())
    first = next(texts, None)
    if first is None:
        what = "this Python's library (installed without sources?)" if source is None else source
        raise UserError(f"{what} holds no text: give another corpus")
    return itertools.chain([first], texts)


def fingerprint(source: str | Path | None) -> str:
    """sha256 over the content that `read_corpus(source)` reads: the names and sha256 of its files.
    For the default corpus: the Python version, and the files' names and sizes."""
    if source is None:
        root, files = documents.library()
        about = f"python {platform.python_version()}, layout {_DEFAULT_LAYOUT}"
        parts = [about, *(f"{p.relative_to(root)}:{p.stat().st_size}" for p in files)]
    else:
        path = _existing(source)
        if path.is_file():
            return sha256(path)
        files = documents.files_of(path)
        parts = [f"{file.relative_to(path)}:{sha256(file)}" for file in files]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class Rows(Iterator[list[int]]):
    """Rows of token ids, made as they are asked for."""

    def __init__(self, numbered: Iterator[tuple[int, list[int]]], tokens: int) -> None:
        self.numbered = numbered
        """The same rows, each with the number of the document that its middle is of: for
        statistics, rows of one document are no independent samples. A row comes once, from here
        or from the iterator itself."""
        self.tokens = tokens
        """How many ids they hold at most (fewer if the corpus ends before)."""

    def __next__(self) -> list[int]:
        return next(self.numbered)[1]


def token_rows(
    texts: Iterable[str],
    prompting: Prompting,
    length: int,
    limit_tokens: int,
    separator: int | None = None,
) -> Rows:
    """Documents packed into rows of exactly `length` ids, `limit_tokens` ids at most in all.

    The documents' ids are joined, with `separator` between them if there is one, and cut into
    rows, each of which begins with what the model expects before a text (`Prompting.start`; it
    counts). What does not fill a row at the end is left out.

    Raises:
        UserError: no tokenizer, rows or a limit of no use, or (while iterating) too little text
            for one row.
    """
    prompting.tokenizer  # noqa: B018  a model without one is refused before anything is read
    head = list(prompting.start)
    if length <= len(head):
        raise UserError(f"rows of {length} tokens have no room for text: make them longer")
    if limit_tokens < length:
        raise UserError(
            f"{limit_tokens} tokens do not fill one row of {length}: raise the limit or shorten "
            "the rows"
        )
    count = limit_tokens // length
    rows = _packed(map(prompting.plain, texts), head, length - len(head), separator)
    return Rows(itertools.islice(rows, count), count * length)


def id_rows(path: str | Path) -> Iterator[list[int]]:
    """Rows of token ids stored as such: a .safetensors file of one integer tensor [rows, length],
    padded with zeros at the ends of the rows. Read a few rows at a time, as they are asked for.

    Raises:
        UserError: no such file, a damaged one, or one that holds something else.
    """
    from safetensors import SafetensorError, safe_open

    wrong = UserError(f"{path} must hold one integer tensor [rows, length]: it does not")
    try:
        with safe_open(_existing(path), "pt") as file:
            if len(names := list(file.keys())) != 1:
                raise wrong
            ids = file.get_slice(names[0])
            if len(shape := ids.get_shape()) != 2 or ids.get_dtype() not in _INTEGERS:
                raise wrong
            block = max(1, _BLOCK // max(1, shape[1]))
            for start in range(0, shape[0], block):
                for row in ids[start : start + block].numpy():
                    if (used := row.nonzero()[0]).size:
                        yield row[: used[-1] + 1].tolist()
    except SafetensorError as error:
        raise UserError(f"{path} cannot be read ({error}): replace it") from error


def _packed(
    documents: Iterable[list[int]], head: list[int], fresh: int, separator: int | None
) -> Iterator[tuple[int, list[int]]]:
    pool: list[int] = []
    whose: list[int] = []  # the document of each id in the pool
    made = 0
    for number, ids in enumerate(documents):
        if separator is not None and (pool or made):
            pool.append(separator)
        pool.extend(ids)
        whose.extend([number] * (len(pool) - len(whose)))
        whole = len(pool) - len(pool) % fresh
        for start in range(0, whole, fresh):
            yield whose[start + fresh // 2], head + pool[start : start + fresh]
        made += whole
        del pool[:whole], whose[:whole]
    if not made:
        raise UserError(
            f"the corpus has {len(pool)} tokens, too few for one row of {len(head) + fresh}: "
            "shorten the rows or give more text"
        )


def _existing(source: str | Path) -> Path:
    path = plain_path(source)
    if not path.exists():
        raise UserError(f"no corpus at {path}: give a file, a folder, or none for the default")
    return path
