"""Texts with classes, and words with first letters: what SAEBench's tests are given here.

SAEBench's data sets are fetched from a hub. Without one, texts are of the installed Python's
library, and a text's class is the package it is from (asyncio, email, …): the packages with the
most files, cut into pieces at line ends. One's own texts come from a file with the fields `text`
and `label`.

Words are single tokens of letters alone, some with a space before them, drawn from the model's
vocabulary. Each stands at the end of SAEBench's spelling prompt,

    \\n apple has the first letter: A\\n … \\n{word}

after EXAMPLES words (SAEBench: 10, and the prompt goes on after the word, which the word's own
activation cannot see).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from ..errors import UserError
from ..model.prompting import Prompting
from ..text import documents

CLASSES = 8
"""Packages of Python's library."""
CHARACTERS = 600
"""A piece of a file has at least so many, but for the last."""
EVERY = 3
"""Every third file (or text of one's own) of a class is tested on."""
EXAMPLES = 3
"""Words before the one that counts."""
TESTED = 0.2
"""Of the words."""
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Labelled:
    """Texts [n] with classes."""

    texts: list[str]
    label: Int[np.ndarray, " n"]
    unit: Int[np.ndarray, " n"]
    """The number of the file that a text is from; of one's own texts their own."""
    tested: Bool[np.ndarray, " n"]
    classes: list[str]
    unit_name: str


def python_packages(each: int) -> Labelled:
    """`each` texts of each of CLASSES packages, in turn from the package's files.

    Raises:
        UserError: a Python without sources.
    """
    root, files = documents.library()
    inside = [path for path in files if len(path.relative_to(root).parts) > 1]
    sizes = Counter(path.relative_to(root).parts[0] for path in inside)
    classes = sorted(name for name, _ in sorted(sizes.items(), key=_most)[:CLASSES])
    found: list[tuple[str, int, int, bool]] = []
    for label, name in enumerate(classes):
        own = [path for path in inside if path.relative_to(root).parts[0] == name]
        pieces = [_pieces(path.read_text("utf-8", errors="replace")) for path in own]
        first = len(found)
        for turn in range(max(map(len, pieces))):
            for at, some in enumerate(pieces):
                if turn < len(some) and len(found) - first < each:
                    found.append((some[turn], label, files.index(own[at]), at % EVERY == EVERY - 1))
    if len(classes) < 2:
        raise UserError("this Python has no library's sources: give --classes a file of texts")
    return _labelled(found, classes, "file")


def _most(of: tuple[str, int]) -> tuple[int, str]:
    return (-of[1], of[0])


def _pieces(source: str) -> list[str]:
    pieces, lines = [], ""
    for line in source.splitlines(keepends=True):
        lines += line
        if len(lines) >= CHARACTERS:
            pieces.append(lines)
            lines = ""
    return pieces


def labelled_file(path: str | Path, each: int) -> Labelled:
    """The first `each` texts of each class of a .jsonl or .parquet file or a dataset on disk.

    Raises:
        UserError: no such file, no such fields, or fewer than two classes.
    """
    source = Path(path).expanduser()
    if not source.exists():
        raise UserError(f"no labelled texts at {path}: give a file with fields text and label")
    pairs = zip(*(documents.of_path(source, name) for name in ("text", "label")), strict=True)
    kept: dict[str, list[str]] = {}
    for text, label in pairs:
        own = kept.setdefault(label, [])
        if len(own) < each and text.strip():
            own.append(text)
    classes = sorted(label for label, texts in kept.items() if len(texts) >= EVERY)
    if len(classes) < 2:
        raise UserError(
            f"{path} has {len(classes)} labels with {EVERY} texts or more: give two or more"
        )
    found = [
        (text, label, label * each + at, at % EVERY == EVERY - 1)
        for label, name in enumerate(classes)
        for at, text in enumerate(kept[name])
    ]
    return _labelled(found, classes, "text")


def _labelled(
    found: Sequence[tuple[str, int, int, bool]], classes: list[str], unit: str
) -> Labelled:
    texts, label, units, tested = zip(*found, strict=True)
    about = (np.array(label), np.array(units), np.array(tested))
    return Labelled(list(texts), *about, classes, unit)


@dataclass(frozen=True)
class Words:
    """Single tokens [n] and their spelling prompts."""

    texts: list[str]
    label: Int[np.ndarray, " n"]
    """The first letter's place in the alphabet."""
    tested: Bool[np.ndarray, " n"]
    rows: list[list[int]]
    """Each prompt's ids; the last one is the word's."""


def spelled_words(prompting: Prompting, strings: Sequence[str], count: int, seed: int = 0) -> Words:
    """`count` words of a vocabulary, or all there are, in a random order.

    Args:
        strings: the text of every id of the vocabulary.

    Raises:
        UserError: too few tokens that are words.
    """
    ids = [i for i, text in enumerate(strings) if re.fullmatch(" ?[A-Za-z]+", text)]
    if len(ids) < 10 * EXAMPLES:
        raise UserError(f"the vocabulary has {len(ids)} words: give --words 0")
    draw = np.random.default_rng(seed)
    drawn = draw.permutation(ids)[:count].tolist()
    tested = np.arange(len(drawn)) < round(TESTED * len(drawn))
    rows = []
    for word, held in zip(drawn, tested, strict=True):
        pool = np.array(drawn)[tested == held]
        others = draw.permutation(pool[pool != word])[:EXAMPLES].tolist()
        shown = (f"{strings[i]} has the first letter: {_first(strings[i]).upper()}" for i in others)
        head = "\n".join(["", *shown, ""])
        rows.append([*prompting.ids(head), word])
    texts = [strings[i] for i in drawn]
    label = np.array([LETTERS.index(_first(text)) for text in texts])
    return Words(texts, label, tested, rows)


def _first(text: str) -> str:
    return text.strip()[0].lower()


def text_rows(prompting: Prompting, texts: Sequence[str], length: int) -> Iterator[list[int]]:
    """The ids of texts, cut to `length`."""
    return (prompting.ids(text)[:length] for text in texts)
