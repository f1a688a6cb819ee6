"""The documents of text files, .jsonl, .parquet, datasets on disk, and of the installed Python."""

from __future__ import annotations

import ast
import inspect
import itertools
import os
import random
import sysconfig
import tokenize
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..plain_json import called, check, parsed, read_json
from ..plain_tables import parquet_batches, stream_batches

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


def of_path(path: Path, field: str) -> Iterator[str]:
    """The documents of a file, a folder or a dataset, in the order of the files' names."""
    if path.is_file():
        return _file_documents(path, field)
    files = files_of(path)
    if _is_dataset(path):
        # with Arrow alone: `datasets` takes seconds to import and adds nothing here
        batches = itertools.chain.from_iterable(map(stream_batches, files))
        return _strings(batches, field, path)
    return itertools.chain.from_iterable(_file_documents(file, field) for file in files)


def files_of(folder: Path) -> list[Path]:
    """The files of a folder that are read: of a saved dataset its Arrow files, in the order of its
    state.json; else those with a readable ending, by name, without hidden ones."""
    if _is_dataset(folder):
        return _data_files(folder)
    if (folder / "dataset_dict.json").exists():
        splits = sorted(path.name for path in folder.iterdir() if _is_dataset(path))
        raise UserError(f"{folder} holds several splits: give one of {', '.join(splits)} in it")
    readable = []
    for path in folder.rglob("*"):
        inside = path.relative_to(folder)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in inside.parts)
        if path.suffix[1:].lower() in READABLE and not hidden and path.is_file():
            readable.append(path)
    if not readable:
        raise UserError(f"{folder} holds no text, .jsonl or .parquet files: give another corpus")
    return sorted(readable, key=lambda path: path.relative_to(folder).parts)


def _data_files(folder: Path) -> list[Path]:
    """The Arrow files of a saved dataset, which lie in its folder."""
    path = folder / "state.json"
    fix = "save the dataset again"
    parts = read_json(path, fix).get("_data_files")
    check(parts, list[dict[str, str]], f"'_data_files' of {path}", fix)
    names = [part.get("filename", "") for part in parts]
    if wrong := [name for name in names if not name or Path(name).name != name]:
        raise UserError(f"{path} names '{wrong[0]}', which is no file of its folder: {fix}")
    return [folder / name for name in names]


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
    record: dict[str, Any] = parsed(line, where, "mend or remove it")
    if field not in record:
        raise UserError(f"{where} has no field '{field}': it has {', '.join(record)}")
    text = record[field]
    if text is not None and not isinstance(text, str):
        raise UserError(f"field '{field}' in {where} is no text but {called(text)}")
    return text or ""


def _parquet(path: Path, field: str) -> Iterator[str]:
    return _strings(parquet_batches(path, [field]), field, path)


def _is_dataset(path: Path) -> bool:
    return (path / "dataset_info.json").is_file() and (path / "state.json").is_file()


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


def library() -> tuple[Path, list[Path]]:
    """The folder of the standard library and its source files, tests and tables left out."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = []
    for folder, inside, names in os.walk(root):
        inside[:] = set(inside) - _LEFT_OUT  # not walked: installed packages are many times as much
        for name in names:
            generated = name.startswith("_sysconfigdata")  # differs from machine to machine
            if name.endswith(".py") and not generated:
                files.append(Path(folder, name))
    return root, sorted(files)


def of_python() -> Iterator[str]:
    """The installed Python's language reference, and its library's docstrings and code, shuffled
    the same way each time."""
    from pydoc_data.topics import topics

    _, files = library()
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
