"""Concepts to ask a model for: words, texts that describe them, prompts that call for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import UserError
from ..model.vocabulary import as_text, token_strings, word_family
from ..plain_path import plain_path
from ..plain_yaml import read_yaml

if TYPE_CHECKING:
    from ..model.weights import Weights


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
    content = read_yaml(path)
    try:
        concepts = {word: _concept(word, entry) for word, entry in content.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path} is no file of concepts ({reason}): data/concepts.yaml shows the form"
        ) from error
    if not concepts:
        raise UserError(f"{path} holds no concept: data/concepts.yaml shows the form")
    return concepts


def _concept(word: str, entry: dict[str, Any]) -> Concept:
    neighbour = entry["neighbour"]
    lists = entry["prompts"], neighbour["prompts"]
    if not all(isinstance(x, list) and x and all(isinstance(t, str) for t in x) for x in lists):
        raise ValueError(f"the prompts of '{word}' must be lists of texts")
    texts = str(entry["describe"]), lists[0], str(neighbour["word"]), lists[1]
    if not all(text.strip() for text in (texts[0], *lists[0], *lists[1])):
        raise ValueError(f"a text of '{word}' is empty")
    if word_family(texts[2]) == word_family(word):
        raise ValueError(f"the neighbour of '{word}' is the same word")
    return Concept(word, *texts)


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
        if (meant := as_text(word)) != word:
            raise UserError(f"no single token stands for '{word}': write it as text, '{meant}'")
        raise UserError(f"no single token stands for '{word}' in this model's vocabulary")
    return ids
