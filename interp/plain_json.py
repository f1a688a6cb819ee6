"""JSON that anyone may have written: read whole and checked, or refused in one line."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import UserError

T = TypeVar("T")

LARGEST = 64 << 20
"""Bytes of a file; parsed it takes up to twenty times as many."""
DEEPEST = 100
"""Lists and objects in each other; to write and to show them again, Python recurses."""
_CALLED: dict[Any, str] = {
    **{str: "a text", bool: "true or false", int: "a whole number", float: "a number"},
    **{dict: "an object", list: "a list", tuple: "a list", type(None): "null"},
}


def read_json(path: Path, fix: str = "mend or replace it", kind: type = dict) -> Any:
    """What a file holds.

    Args:
        fix: what the reader of a complaint can do.
        kind: of the whole: dict, list, or object for either.

    Raises:
        UserError: it cannot be read, is too large, or is not what `parsed` takes.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path} is larger than {LARGEST >> 20} MiB: {fix}")
        text = path.read_text("utf-8")
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): {fix}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {path} (it is no UTF-8 text): {fix}") from error
    return parsed(text, str(path), fix, kind)


def parsed(text: str, where: str, fix: str = "mend or replace it", kind: type = dict) -> Any:
    """What a text holds.

    Args:
        where: the file, and the place in it.

    Raises:
        UserError: it is broken, too deep, has a key twice, half a character, or another kind.
    """
    try:
        content = json.loads(text, object_pairs_hook=_mapping)
        _check_depth(content)
        if r"\ud" in text.lower():  # half a character cannot be written again
            json.dumps(content, ensure_ascii=False).encode()
    except RecursionError as error:
        raise UserError(f"{where} is nested more than {DEEPEST} deep: {fix}") from error
    except _TwiceError as error:
        raise UserError(f"{where} has the key '{error}' twice: {fix}") from error
    except UnicodeEncodeError as error:
        raise UserError(f"{where} has half of a character (a lone surrogate): {fix}") from error
    except ValueError as error:
        raise UserError(f"{where} is broken JSON ({error}): {fix}") from error
    if not isinstance(content, kind):
        raise UserError(f"{where} holds {called(content)}, not {_CALLED[kind]}: {fix}")
    return content


def called(value: Any) -> str:
    """What a value of JSON is, in words."""
    return _CALLED[type(value)]


def record(cls: type[T], given: Any, where: str, fix: str = "mend or replace it") -> T:
    """A dataclass from the object that `dataclasses.asdict` made of it.

    Raises:
        UserError: no object, an entry too many, too few, or of another kind.
    """
    if not isinstance(given, dict):
        raise UserError(f"{where} is {called(given)}, not an object: {fix}")
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if extra := [name for name in given if name not in fields]:
        raise UserError(f"{where} has an entry '{extra[0]}' that is not known: {fix}")
    hints = get_type_hints(cls)
    for name, field in fields.items():
        if name in given:
            check(given[name], hints[name], f"'{name}' of {where}", fix)
        elif {field.default, field.default_factory} == {dataclasses.MISSING}:
            raise UserError(f"{where} lacks the entry '{name}': {fix}")
    return cls(**given)


def check(value: Any, kind: Any, where: str, fix: str = "mend or replace it") -> None:
    """Raise UserError for a value of JSON that is not of a type, such as dict[str, float]; it names
    the place in it that is wrong."""
    if kind is Any:
        return
    choices = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    fitting = [each for each in choices if _is(value, get_origin(each) or each)]
    if not fitting:
        names = " or ".join(_CALLED[get_origin(each) or each] for each in choices)
        is_what = "missing or null" if value is None else called(value)
        raise UserError(f"{where} is {is_what}, not {names}: {fix}")
    inner = get_args(fitting[0])
    if inner and isinstance(value, list):
        for number, each in enumerate(value, 1):
            check(each, inner[0], f"entry {number} of {where}", fix)
    elif inner and isinstance(value, dict):
        for name, each in value.items():
            check(each, inner[1], f"'{name}' of {where}", fix)


def _is(value: Any, plain: type) -> bool:
    if plain is float:
        return type(value) in (int, float)
    return type(value) is (list if plain is tuple else plain)


class _TwiceError(Exception):
    """An object has this key twice."""


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """As `json` makes it, which keeps the last of two equal keys."""
    made = dict(pairs)
    if len(made) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise _TwiceError(counts.most_common(1)[0][0])
    return made


def _check_depth(content: Any) -> None:
    """Raise RecursionError for more than DEEPEST levels."""
    level, depth = [content], 0
    while level := [each for each in level if isinstance(each, list | dict)]:
        depth += 1
        if depth > DEEPEST:
            raise RecursionError
        inside = (each.values() if isinstance(each, dict) else each for each in level)
        level = [value for values in inside for value in values]
