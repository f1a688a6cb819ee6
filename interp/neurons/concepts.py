"""Concepts to ask a model for: words, texts that describe them, prompts that call for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import UserError
from ..model.vocabulary import NO_TEXT, as_text, has_text, token_strings, word_family
from ..plain_json import check
from ..plain_path import plain_path

if TYPE_CHECKING:
    from ..model.weights import Weights


_FIX = "data/concepts.yaml shows the form"


class Concept(NamedTuple):
    """One entry of a concept file (see data/concepts.yaml)."""

    word: str
    describe: str
    prompts: list[str]
    neighbour: str
    neighbour_prompts: list[str]


def read_concepts(path: Path) -> dict[str, Concept]:
    """The entries of a concept file, by word.

    Raises:
        UserError: no such file, or not of the form of data/concepts.yaml.
    """
    from ..plain_yaml import read_yaml

    content = read_yaml(path)
    check(content, dict[str, dict[str, Any]], str(path), _FIX)
    if not content:
        raise UserError(f"{path} holds no concept: {_FIX}")
    return {word: _concept(word, entry, f"'{word}' of {path}") for word, entry in content.items()}


def _concept(word: str, entry: dict[str, Any], where: str) -> Concept:
    neighbour: Any = entry.get("neighbour")
    check(neighbour, dict[str, Any], f"'neighbour' of {where}", _FIX)
    both = ((entry, "describe", where), (neighbour, "word", f"'neighbour' of {where}"))
    texts = []
    for holder, name, place in both:
        for key, kind in ((name, str), ("prompts", list[str])):
            check(holder.get(key), kind, f"'{key}' of {place}", _FIX)
            texts.append(holder[key])
    describe, prompts, other, other_prompts = texts
    if not prompts or not other_prompts:
        raise UserError(f"{where} or its neighbour has no prompts: {_FIX}")
    if not all(text.strip() for text in (describe, *prompts, other, *other_prompts)):
        raise UserError(f"{where} has an empty text: {_FIX}")
    if word_family(other) == word_family(word):
        raise UserError(f"the neighbour of {where} is the same word: give another")
    return Concept(word, describe, prompts, other, other_prompts)


def concept_file(file: str) -> Path:
    from interp.data import FOLDER

    path = plain_path(file) if file else FOLDER / "concepts.yaml"
    if not path.is_file():
        raise UserError(f"no file of concepts at {path}")
    return path


def word_tokens(weights: Weights, word: str) -> list[int]:
    """Ids of the tokens that stand for a word, in any of its forms.

    Raises:
        UserError: there is none.
    """
    family, strings = word_family(word), token_strings(weights.folder, weights.spec.d_vocab)
    ids = [i for i, string in enumerate(strings) if word_family(string) == family]
    if not ids:
        if not has_text(weights.folder, weights.spec.d_vocab):
            raise UserError(f"{NO_TEXT}: give another model")
        if (meant := as_text(word)) != word:
            raise UserError(f"no single token stands for '{word}': write it as text, '{meant}'")
        raise UserError(f"no single token stands for '{word}' in this model's vocabulary")
    return ids
