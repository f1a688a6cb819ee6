"""Whether what a stored run says of itself is of the types that its study's config class gives.

A run folder may come from someone else, and who reads a run's config or facts counts on their
types, as command lines and notebooks do when they make a config. So a run is held against the class
where it is opened as a run of its study, and readers need not. What a run of an earlier version
lacks stays absent; where a field had another type, its `metadata={"earlier": type}` says so. A run
of a study that is not installed is as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from ..errors import UserError
from ..plain_json import check

T = TypeVar("T")
COMMON = {
    "parity": float | None, "site_error": float | None, "device": str, "python": str,
    "text": dict[str, Any], "packages": dict[str, str], "fingerprints": dict[str, str],
}  # fmt: skip
"""Facts that a manifest of any study may have."""
PLAIN = {str, bool, int, float, dict, list, type(None)}
LARGEST = 2**63
"""Whole numbers are below it, as in the tables."""
_lookups: list[Callable[[str], Any]] = []


def look_up_with(class_of: Callable[[str], Any]) -> None:
    """Let the registry, which stands above this package, say what a study's config class is."""
    _lookups.append(class_of)


def class_of(study: str) -> Any:
    """A study's config class; None for one that is not installed."""
    return next(filter(None, (look_up(study) for look_up in _lookups)), None)


def check_fits(path: Path, manifest: Mapping[str, Any]) -> None:
    """Hold a manifest against its study's config class: its fields, and the facts that the class
    names in `FACTS` ("model.n_layers" is the entry of an object, "shapes.*" is every entry).

    Raises:
        UserError: a value of another type; the line names the run and the field.
    """
    for config in filter(None, (class_of(manifest["study"]) for class_of in _lookups)):
        fields, facts = _types(config)
        _check(manifest["config"], fields, f"the config of {path}")
        _check(manifest, facts, f"the manifest of {path}")


def check_common(path: Path, manifest: Mapping[str, Any]) -> None:
    """Hold a manifest's facts against `COMMON`, whatever its study.

    Raises:
        UserError: as `check_fits`.
    """
    _check(manifest, COMMON, f"the manifest of {path}")


def rebuilt(config: type[T], stored: Mapping[str, Any], **changes: Any) -> T:
    """A config from a stored run's, without what its class does not know (any more)."""
    known = {field.name for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    kept = {name: value for name, value in stored.items() if name in known}
    return config(**{**kept, **changes})


def _check(values: Mapping[str, Any], types: Mapping[str, Any], where: str) -> None:
    fix = "do not use this run, or make it again with its own command and --fresh"
    for name, kind in types.items():
        for value in _entries(values, name.split(".")):
            check(value, kind, f"'{name}' of {where}", fix)
            if _is_vast(value):
                raise UserError(f"'{name}' of {where} has a number of over 64 bits: {fix}")


def _entries(values: Any, names: list[str]) -> list[Any]:
    """The entries with a name, in objects in each other; none where there is none."""
    if not names:
        return [values]
    if not isinstance(values, Mapping):
        return []
    inside = values.values() if names[0] == "*" else [values[n] for n in names[:1] if n in values]
    return [entry for each in inside for entry in _entries(each, names[1:])]


@lru_cache
def _types(config: type[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The types of a class's fields and facts, as JSON has them."""
    hints = get_type_hints(config)
    fields = {}
    for field in dataclasses.fields(config):
        now = _of_json(hints[field.name])
        earlier = field.metadata.get("earlier", now)
        fields[field.name] = now if now is Any else now | earlier
    return fields, getattr(config, "FACTS", {})


def _of_json(hint: Any) -> Any:
    """A type as JSON has it. Which words a choice is of may change without a version of its own; a
    type that JSON has not, in an outside package's config, may be anything."""
    if get_origin(hint) is Literal:
        return type(get_args(hint)[0])
    if get_origin(hint) is tuple:
        return list[_of_json(get_args(hint)[0])]  # type: ignore[misc]
    parts = get_args(hint) if get_origin(hint) is UnionType else (hint,)
    return hint if {get_origin(part) or part for part in parts} <= PLAIN else Any


def _is_vast(value: Any) -> bool:
    inside = value.values() if isinstance(value, dict) else value
    if isinstance(value, dict | list):
        return any(map(_is_vast, inside))
    return isinstance(value, int) and abs(value) >= LARGEST
