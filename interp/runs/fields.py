"""A study's settings as a person fills them in: what each is, and from text to value and back.

A form, a link and a command line say the same: `read` gives what the command line makes of it.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from dataclasses import MISSING, dataclass
from functools import lru_cache
from itertools import pairwise
from math import isfinite
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..errors import UserError

ADVANCED = {
    *("device", "seed", "bos", "batch_size", "checkpoint", "precision", "dtype", "anyway"),
    *("workers", "gpus_per_worker", "memory_per_worker"),
}
"""Settings that one rarely changes, by their names."""


@dataclass(frozen=True)
class Setting:
    """One field of a study's config."""

    name: str
    about: str
    """The line below it in the class: what `--help` says."""
    kind: type
    """str, int, float or bool; of several values, of each."""
    several: bool
    choices: tuple[str, ...]
    """The words that it may be; () for any."""
    empty: bool
    """It may be left out (None)."""
    usual: Any
    """Its default; None where it has none."""
    needed: bool
    """It has no default."""

    @property
    def advanced(self) -> bool:
        return self.name in ADVANCED

    def written(self, value: Any) -> str:
        """A value as text: numbers between commas, texts a line each."""
        if value is None:
            return ""
        if not self.several:
            return str(value)
        if self.kind is str and not self.choices:
            return "\n".join(each.replace("\\", "\\\\").replace("\n", "\\n") for each in value)
        return ", ".join(map(str, value))

    def read(self, given: Any) -> Any:
        """The value that was filled in: text as `written` has it, or of the value's own type.

        Raises:
            UserError: it is no such value.
        """
        if self.needed and given in (None, "", [], ()):
            raise UserError(f"{self.name} is needed: {self.about}")
        if self.several:
            return tuple(self._one(part) for part in self._parts(given))
        if given is None or (given == "" and self.empty):
            return None if self.empty else self._one("")
        return self._one(given)

    def _parts(self, given: Any) -> list[Any]:
        if not isinstance(given, str):
            return list(given or ())
        if self.kind is str and not self.choices:
            return [_unescaped(line) for line in given.splitlines() if line]
        return [part.strip() for part in re.split(r"[,\n]", given) if part.strip()]

    def _one(self, given: Any) -> Any:
        if self.choices:
            if given not in self.choices:
                listed = ", ".join(self.choices)
                raise UserError(f"{self.name} cannot be '{given}': it is one of {listed}")
            return given
        if self.kind is bool or isinstance(given, bool):
            return given == "yes" if isinstance(given, str) else bool(given)
        try:
            value = self.kind(given)
            if value != given and isinstance(given, float):
                raise ValueError
        except (ValueError, TypeError, OverflowError) as error:
            what = "a whole number" if self.kind is int else "a number"
            raise UserError(f"{self.name} cannot be '{given}': it is {what}") from error
        if isinstance(value, float) and not isfinite(value):
            raise UserError(f"{self.name} cannot be {value}: give a number")
        return value


def _unescaped(line: str) -> str:
    """A line in which a newline is written \\n and a backslash \\\\."""
    return "\\".join(part.replace("\\n", "\n") for part in line.split("\\\\"))


@lru_cache
def settings_of(kind: type) -> tuple[Setting, ...]:
    """The settings of a study's config class, in its order."""
    hints, texts = get_type_hints(kind), abouts(kind)
    return tuple(
        _setting(f, hints[f.name], texts.get(f.name, "")) for f in dataclasses.fields(kind)
    )


def _setting(field: dataclasses.Field[Any], hint: Any, about: str) -> Setting:
    union = get_origin(hint) is UnionType
    parts = [part for part in get_args(hint) if part is not NoneType] if union else [hint]
    several = get_origin(parts[0]) is tuple
    one = get_args(parts[0])[0] if several else parts[0]
    choices = get_args(one) if get_origin(one) is Literal else ()
    needed = field.default is MISSING and field.default_factory is MISSING
    return Setting(
        name=field.name,
        about=about,
        kind=type(choices[0]) if choices else one,
        several=several,
        choices=choices,
        empty=union and NoneType in get_args(hint),
        usual=None if needed else field.default,
        needed=needed,
    )


def abouts(kind: type) -> dict[str, str]:
    """The text below each field of a dataclass and of those it is made from."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if dataclasses.is_dataclass(each):
            found |= _below(each)
    return found


def _below(kind: type) -> dict[str, str]:
    try:
        source = textwrap.dedent(inspect.getsource(kind))
    except (OSError, TypeError):  # made on the spot: nothing is written below its fields
        return {}
    (body,) = (node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    return {
        field.target.id: " ".join(str(text.value.value).split())
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }


def config_of(kind: Any, given: dict[str, Any]) -> Any:
    """A config of what was filled in, by the settings' names; the rest is as usual.

    Raises:
        UserError: a value that is none, or a setting that there is not.
    """
    known = {setting.name: setting for setting in settings_of(kind)}
    if extra := [name for name in given if name not in known]:
        raise UserError(f"{kind.STUDY} has no setting '{extra[0]}': it has {', '.join(known)}")
    missing = {name: None for name, setting in known.items() if setting.needed} | given
    return kind(**{name: known[name].read(value) for name, value in missing.items()})
