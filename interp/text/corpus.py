"""Text to run models over: files, folders, saved datasets, and an offline default; rows of ids.

Everything is streamed: no more than one document (of a big text file, one piece) is in memory.
Documents without any text are passed over.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import itertools
import json
import platform
import random
import sysconfig
import tokenize
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..model.catalog import sha256

READABLE = (
    "txt", "md", "rst", "tex", "org", "html", "xml", "csv", "log", "py", "c", "h", "cc", "cpp",
    "hpp", "java", "js", "ts", "go", "rs", "rb", "r", "lua", "sh", "sql", "toml", "yaml", "yml",
    "jsonl", "parquet",
)  # fmt: skip
"""Endings of the files that are read from a folder."""
PIECE = 2**20
"""A text file longer than this is read as several documents, cut at line ends."""
_LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
_LEFT_OUT |= {"encodings", "pydoc_data"}  # character tables; the topics, read by name
_DEFAULT_LAYOUT = 1
"""Which documents the default corpus makes of those files; part of its fingerprint."""


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
    found = _default_documents() if source is None else _documents(_existing(source), field)
    texts = (text for text in found if text.strip())
    first = next(texts, None)
    if first is None:
        what = "this Python's library (installed without sources?)" if source is None else source
        raise UserError(f"{what} holds no text: give another corpus")
    return itertools.chain([first], texts)


def fingerprint(source: str | Path | None) -> str:
    """sha256 over the content that `read_corpus(source)` reads: names and sha256 of the files; of
    the default, the Python version and names and sizes."""
    if source is None:
        root, files = _library()
        about = f"python {platform.python_version()}, layout {_DEFAULT_LAYOUT}"
        parts = [about, *(f"{p.relative_to(root)}:{p.stat().st_size}" for p in files)]
    else:
        path = _existing(source)
        if path.is_file():
            return sha256(path)
        files = _dataset_files(path) if _is_dataset(path) else _corpus_files(path)
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
    encode: Callable[[str], list[int]],
    length: int,
    bos: int | None,
    limit_tokens: int,
    separator: int | None = None,
) -> Rows:
    """Documents packed into rows of exactly `length` ids, `limit_tokens` ids at most in all.

    The documents' ids are joined, with `separator` between them if there is one, and cut into
    rows, each of which begins with `bos` if there is one (it counts). What does not fill a row at
    the end is left out.

    Raises:
        UserError: rows or a limit of no use, or (while iterating) too little text for one row.
    """
    if length < 1 + (bos is not None):
        raise UserError(f"rows of {length} tokens have no room for text: make them longer")
    if limit_tokens < length:
        raise UserError(
            f"{limit_tokens} tokens do not fill one row of {length}: raise the limit or shorten "
            "the rows"
        )
    count = limit_tokens // length
    head = [] if bos is None else [bos]
    rows = _packed(map(encode, texts), head, length - len(head), separator)
    return Rows(itertools.islice(rows, count), count * length)


def id_rows(path: str | Path) -> Iterator[list[int]]:
    """Rows of token ids stored as such: a .safetensors file of one integer tensor [rows, length],
    padded with zeros at the ends of the rows.

    Raises:
        UserError: no such file, a damaged one, or one that holds something else.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(_existing(path))
    except SafetensorError as error:
        raise UserError(f"{path} cannot be read ({error}): replace it") from error
    if (
        len(tensors) != 1
        or (ids := next(iter(tensors.values()))).ndim != 2
        or ids.is_floating_point()
    ):
        raise UserError(f"{path} must hold one integer tensor [rows, length]: it does not")
    for row in ids.tolist():
        length = len(row)
        while length and not row[length - 1]:
            length -= 1
        if length:
            yield row[:length]


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
    path = Path(source).expanduser()
    if not path.exists():
        raise UserError(f"no corpus at {path}: give a file, a folder, or none for the default")
    return path


def _documents(path: Path, field: str) -> Iterator[str]:
    if path.is_file():
        return _file_documents(path, field)
    if _is_dataset(path):
        return _strings(_arrow_batches(_dataset_files(path)), field, path)
    files = _corpus_files(path)
    return itertools.chain.from_iterable(_file_documents(file, field) for file in files)


def _corpus_files(folder: Path) -> list[Path]:
    """Files of a folder that can be read, by name, without hidden ones."""
    if (folder / "dataset_dict.json").exists():
        splits = sorted(path.name for path in folder.iterdir() if _is_dataset(path))
        raise UserError(f"{folder} holds several splits: give one of {', '.join(splits)} in it")
    found = []
    for path in folder.rglob("*"):
        inside = path.relative_to(folder)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in inside.parts)
        if path.suffix[1:].lower() in READABLE and not hidden and path.is_file():
            found.append(path)
    if not found:
        raise UserError(f"{folder} holds no text, .jsonl or .parquet files: give another corpus")
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def _file_documents(path: Path, field: str) -> Iterator[str]:
    reader = {".jsonl": _jsonl, ".parquet": _parquet}.get(path.suffix.lower())
    return reader(path, field) if reader else _text_pieces(path)


def _text_pieces(path: Path) -> Iterator[str]:
    with _reading(path), path.open(encoding="utf-8-sig") as file:
        while lines := file.readlines(PIECE):
            yield "".join(lines)


def _jsonl(path: Path, field: str) -> Iterator[str]:
    with _reading(path), path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _field_of(line, field, f"{path} line {number}")


def _field_of(line: str, field: str, where: str) -> str:
    try:
        record: Any = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where} is broken JSON ({error}): mend or remove it") from error
    if not isinstance(record, dict):
        raise UserError(f"{where} is no JSON object: every line must be one")
    if field not in record:
        raise UserError(f"{where} has no field '{field}': it has {', '.join(record)}")
    text = record[field]
    if text is not None and not isinstance(text, str):
        raise UserError(f"field '{field}' in {where} is no text but {type(text).__name__}")
    return text or ""


def _parquet(path: Path, field: str) -> Iterator[str]:
    import pyarrow.parquet

    with _reading(path), pyarrow.parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        columns = [field] if field in names else names  # `_strings` says which there are
        yield from _strings(file.iter_batches(batch_size=256, columns=columns), field, path)


def _is_dataset(path: Path) -> bool:
    return (path / "dataset_info.json").is_file() and (path / "state.json").is_file()


def _dataset_files(folder: Path) -> list[Path]:
    """The Arrow files of a dataset saved on disk, in the order of its state.json."""
    with _reading(folder / "state.json"):
        state = json.loads((folder / "state.json").read_text())
        return [folder / part["filename"] for part in state["_data_files"]]


def _arrow_batches(files: Iterable[Path]) -> Iterator[Any]:
    """Read with pyarrow alone: `datasets` takes seconds to import and adds nothing here."""
    import pyarrow

    for path in files:
        with _reading(path), pyarrow.memory_map(str(path)) as file:
            yield from pyarrow.ipc.open_stream(file)


def _strings(batches: Iterable[Any], field: str, path: Path) -> Iterator[str]:
    """One column of Arrow record batches; missing values read as no text."""
    for batch in batches:
        if field not in batch.schema.names:
            names = ", ".join(batch.schema.names)
            raise UserError(f"{path} has no field '{field}': it has {names}")
        kind = batch.schema.field(field).type
        if str(kind) not in ("string", "large_string", "string_view"):
            raise UserError(f"field '{field}' in {path} is no text but {kind}")
        for text in batch.column(field):
            yield text.as_py() or ""


def _library() -> tuple[Path, list[Path]]:
    """The folder of the standard library and its source files, tests and tables left out."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = []
    for path in sorted(root.rglob("*.py")):
        generated = path.name.startswith("_sysconfigdata")  # differs from machine to machine
        if not generated and not _LEFT_OUT & set(path.relative_to(root).parts):
            files.append(path)
    return root, files


def _default_documents() -> Iterator[str]:
    from pydoc_data.topics import topics

    _, files = _library()
    known = {f"{kind} {path}": (kind, path) for path in files for kind in ("prose", "code")}
    names = [*sorted(topics), *known]
    random.Random(0).shuffle(names)
    for name in names:
        if name in topics:
            yield topics[name]
        else:
            kind, path = known[name]
            prose, code = _prose_and_code(path)
            yield prose if kind == "prose" else code


def _prose_and_code(path: Path) -> tuple[str, str]:
    """A module's docstrings, and its source without them, so that no text comes twice."""
    with _reading(path), tokenize.open(path) as file:
        source = file.read()
        tree = ast.parse(source)
    lines: list[str | None] = list(source.split("\n"))  # not splitlines: it cuts at form feeds
    prose = []
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and (text := ast.get_docstring(node, clean=False)):
            place = node.body[0]
            end = place.end_lineno or place.lineno
            lines[place.lineno - 1 : end] = [None] * (end - place.lineno + 1)
            prose.append(inspect.cleandoc(text))
    return "\n\n".join(prose), "\n".join(line for line in lines if line is not None)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: convert it or leave it out") from error
    except (OSError, ValueError, KeyError, TypeError, SyntaxError) as error:  # Arrow's are among
        raise UserError(f"{path} cannot be read ({error}): replace it or leave it out") from error
