"""A task's file: what it holds, how it is read and checked, and how that is shown.

One that comes with the workbench (`data/observables/`) goes by its name, any other by its path.
`KEYS` is what files are checked by and what `schema` prints.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NamedTuple

from interp.data import FOLDER

from ..errors import UserError
from ..plain_path import plain_path
from ..plain_yaml import read_yaml

Pair = tuple[str, str]
WORDS = FOLDER / "observables" / "words.yaml"
LANGUAGES = ("C", "Python")
"""Languages whose code is looked for among what is installed (code.py)."""


@dataclass(frozen=True)
class Task:
    """A task's file, read and checked."""

    name: str
    about: str
    observable: dict[str, float]
    pair: Pair
    templates: tuple[str, ...] = ()
    words: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    sources: Pair | None = None


class Key(NamedTuple):
    """A key of a task's file."""

    about: str
    example: str
    """A value for it, as YAML."""
    read: Callable[[Any], Any]
    """The value; raises ValueError for one that does not fit, with what follows the key's name."""
    needed: bool = True


def _about(given: Any) -> str:
    if not isinstance(given, str):
        raise ValueError("must be a text")
    return given.strip()


def _observable(given: Any) -> dict[str, float]:
    if not isinstance(given, dict) or not given:
        raise ValueError("must be a mapping of words to weights, with at least one word")
    weights = {}
    for word, weight in given.items():
        try:
            weights[word] = float(weight)
        except (TypeError, ValueError) as error:
            raise ValueError(f"entry {word!r}: the weight {weight!r} is no number") from error
        if not math.isfinite(weights[word]):
            raise ValueError(f"entry {word!r}: the weight {weight} is not finite")
    return weights


def _texts(given: Any) -> tuple[str, ...]:
    if not isinstance(given, list) or not given:
        raise ValueError("must be a list of texts")
    for number, text in enumerate(given, 1):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"entry {number} is empty or not a text")
    return tuple(given)


def _pair(given: Any) -> Pair:
    if not isinstance(given, list) or len(given) != 2:
        raise ValueError("must be a list of two texts")
    first, second = _texts(given)
    return first, second


def _templates(given: Any) -> tuple[str, ...]:
    texts = _texts(given)
    for number, text in enumerate(texts, 1):
        if text.count("[WORD]") != 1:
            raise ValueError(f"entry {number} needs exactly one [WORD]: {text!r}")
    return texts


def _words(given: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if not isinstance(given, list) or len(given) != 2:
        raise ValueError("must be a list of two: names of lists, or lists of words")
    sides = []
    for number, part in enumerate(given, 1):
        known = read_yaml(WORDS) if isinstance(part, str) else {}
        if isinstance(part, str) and part not in known:
            raise ValueError(f"entry {number}: no list '{part}'; there are {', '.join(known)}")
        try:
            sides.append(_texts(known[part] if isinstance(part, str) else part))
        except ValueError as error:
            raise ValueError(f"entry {number}: {error}") from error
    one, other = sides
    if both := sorted(set(one) & set(other)):
        raise ValueError(f"the word '{both[0]}' is on both sides")
    return one, other


def _sources(given: Any) -> Pair:
    languages = _pair(given)
    if set(languages) != set(LANGUAGES):
        raise ValueError(f"must be {LANGUAGES[0]} and {LANGUAGES[1]}, in either order")
    return languages


KEYS = {
    "about": Key(
        "what the task is about (optional)", "Which pronoun the model expects", _about, False
    ),
    "observable": Key("words and their weights", '{" she": 1, " he": -1}', _observable),
    "pair": Key(
        "prompt and counterfactual, of as many tokens; the first favours the observable",
        '["So, Anna is a friend, isn\'t", "So, John is a friend, isn\'t"]',
        _pair,
    ),
    "templates": Key(
        "prompts that end where the observable is read, each with one [WORD]",
        '["So, [WORD] is a friend, isn\'t", "Man, [WORD] is so funny, isn\'t"]',
        _templates,
    ),
    "words": Key(
        "what fills them: for each side the name of a list that ships, or a list of words",
        "[female names, male names]",
        _words,
    ),
    "sources": Key(
        "in place of templates and words: two languages whose installed code is told apart",
        f"[{', '.join(LANGUAGES)}]",
        _sources,
        False,
    ),
}
_EXAMPLES = ("templates", "words")
"""Keys of labelled examples, for which `sources` can stand."""


def schema() -> str:
    """What a task's file holds, as a file that is one: `sources` is commented out."""
    lines = []
    for name, key in KEYS.items():
        instead = "# " if name == "sources" else ""
        lines += [f"# {key.about}", f"{instead}{name}: {key.example}"]
    return "\n".join(lines) + "\n"


def shipped() -> list[str]:
    """Names of the tasks that come with the workbench."""
    names = (path.stem for path in WORDS.parent.glob("*.yaml"))
    return sorted(name for name in names if name != WORDS.stem)


def read_task(name: str) -> Task:
    """A shipped task by its name, or one's own by the path of its file.

    Raises:
        UserError: no such task, or a file that is not a task: with its key and entry.
    """
    own = plain_path(name)
    path = own if own.suffix in (".yaml", ".yml") else WORDS.parent / f"{name}.yaml"
    if path == own and not path.is_file():
        raise UserError(
            f"there is no file {path}: give an observable's, or one of {', '.join(shipped())}"
        )
    if not path.is_file() or path == WORDS:
        raise UserError(
            f"there is no observable '{name}': choose one of {', '.join(shipped())}, or give the "
            "path of a .yaml file"
        )
    content = read_yaml(path)
    if reason := _unfit(content):
        raise UserError(f"{path} {reason} (`interp obsprop tasks --schema` shows the form)")
    read: dict[str, Any] = {}
    for key, value in content.items():
        try:
            read[key] = KEYS[key].read(value)
        except ValueError as error:
            raise UserError(
                f"{path}: '{key}' {error} (`interp obsprop tasks --schema` shows the form)"
            ) from error
    return Task(path.stem, read.pop("about", path.stem), **read)


def _unfit(content: Any) -> str:
    """What is wrong with a file's keys; "" if nothing is."""
    if not isinstance(content, dict):
        return f"is no mapping of keys: a task's keys are {', '.join(KEYS)}"
    for name in content:
        if name not in KEYS:
            near = get_close_matches(name, KEYS, 1)
            meant = f"did you mean '{near[0]}'?" if near else f"a task's are {', '.join(KEYS)}"
            return f"has a key '{name}' that no task has: {meant}"
    if "sources" in content and (extra := [name for name in _EXAMPLES if name in content]):
        return f"has 'sources' and '{extra[0]}': give one of them"
    needed = [n for n, key in KEYS.items() if key.needed]
    for name in needed:
        if name not in content and not (name in _EXAMPLES and "sources" in content):
            instead = ", or 'sources' in its place" if name in _EXAMPLES else ""
            return f"lacks the key '{name}': {KEYS[name].about}{instead}"
    return ""
