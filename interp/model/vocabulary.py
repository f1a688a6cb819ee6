"""Token strings and word families, from the tokenizer's files alone (without transformers)."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from pathlib import Path

from ..errors import UserError
from ..plain_json import check
from ..plain_text import printable
from .files import read_json, state_of
from .tokenizer_damage import FIX, check_templates
from .tokenizer_files import read_vocabulary, tokenizer_files


def token_strings(folder: Path, size: int) -> list[str]:
    """The text of every token id 0..size-1, exactly: leading spaces are kept.

    Bytes that are no UTF-8 by themselves show as `\\xe2`, whether they are spelled as GPT-2 does
    or as byte-fallback tokens (`<0xE2>`). Ids beyond the tokenizer's (padded vocabularies), and
    all ids of a model without a tokenizer, show as `#id`.

    Raises:
        UserError: there is a tokenizer, but damaged or in a form that is not read.
    """
    texts = _texts(folder, size)
    return [f"#{i}" if text is None else text for i, text in enumerate(texts)]


def without_string(folder: Path, size: int) -> list[int]:
    """The ids of 0..size-1 that are no token of the model's tokenizer, in order.

    Vocabularies are padded to round sizes, and tokens are taken out of the middle: those rows of
    the unembedding stand for no text. Without a tokenizer nothing tells them apart: none is named.

    Raises:
        UserError: as `token_strings`.
    """
    texts = _texts(folder, size)
    absent = [i for i, text in enumerate(texts) if text is None]
    return absent if len(absent) < size else []


def has_text(folder: Path, size: int) -> bool:
    """Whether any of the ids 0..size-1 is text: a model without a tokenizer has none."""
    return any(text is not None for text in _texts(folder, size))


NO_TEXT = "this model has no tokenizer, and no token of it is text"


def _texts(folder: Path, size: int) -> tuple[str | None, ...]:
    changed = tuple((path.name, state_of(path)) for path in tokenizer_files(folder))
    return _read(folder, size, changed)


@lru_cache(maxsize=2)
def _read(folder: Path, size: int, changed: tuple[tuple[str, str], ...]) -> tuple[str | None, ...]:
    """The texts by the tokenizer's files, kept until one changes: they take a second to make."""
    vocabulary = read_vocabulary(folder)
    if vocabulary is None:
        return (None,) * size

    def text(i: int) -> str | None:
        token = vocabulary.tokens.get(i)
        if token is None or i in vocabulary.literal:
            return token
        if i in vocabulary.byte_of:
            return _as_text(bytes([vocabulary.byte_of[i]]))
        return _from_byte_level(token) if vocabulary.byte_level else token.replace("▁", " ")

    return tuple(map(text, range(size)))


_PRINTABLE = (*range(33, 127), *range(161, 173), *range(174, 256))
_BYTES = {chr(b): b for b in _PRINTABLE}
_BYTES |= {chr(256 + i): b for i, b in enumerate(sorted({*range(256)} - {*_PRINTABLE}))}
"""GPT-2's stand-ins: printable Latin-1 bytes are themselves, the rest start at 256."""


_SPELLED = {byte: stand_in for stand_in, byte in _BYTES.items()}


def byte_level(content: bytes) -> str:
    """Bytes as GPT-2's vocabulary spells them."""
    return "".join(_SPELLED[byte] for byte in content)


def _from_byte_level(token: str) -> str:
    if any(c not in _BYTES for c in token):
        return token
    return _as_text(bytes(_BYTES[c] for c in token))


def _as_text(content: bytes) -> str:
    return content.decode("utf-8", errors="backslashreplace")


def visible(token: str) -> str:
    """A token with its spaces and control characters shown: ' dog' -> '␣dog', newline -> '⏎',
    escape -> '\\x1b'."""
    shown = token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥").replace("\r", "␍")
    return printable(shown) or "(empty)"


def as_text(word: str) -> str:
    """The text of a token that is written as in a tokenizer's file ('▁dog', 'Ġdog') or as tables
    show it ('␣dog'): ' dog'. Any other text as it is."""
    if "Ġ" in word or "Ċ" in word:
        return _from_byte_level(word)
    return word.translate(str.maketrans("▁␣⏎⇥␍", "  \n\t\r"))


@lru_cache(maxsize=2**17)
def word_family(token: str) -> str:
    """The word a token stands for: case, surrounding space and an English plural or 's are dropped.

    ' dog', 'dog', 'Dogs', "dog's" -> 'dog'; 'cities' -> 'city'; 'boxes' -> 'box'; 'glass' stays,
    and so does what is nothing but space or an ending ("'s"). Only a word of the letters a to z can
    be an English plural: ' Übers' is not one of 'über'. The Turkish dotted and dotless i are an
    'i', and an accent counts the same whether it is a character of its own or not.
    Both sides of a comparison go through it, so that a word it clips too far still meets itself.
    """
    plain = unicodedata.normalize("NFC", token).translate(_ONE_I)
    spelled = re.sub(r"(?<=.)['’]s?$", "", plain.strip(), flags=re.IGNORECASE)
    word = spelled.casefold() or token
    if len(word) < 4 or not (spelled.isascii() and word.isalpha()):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if re.search(r"(ss|x|zz|ch|sh)es$", word):
        return word[:-2]
    if word in _NOT_PLURAL:
        return word
    return word[:-1] if re.search(r"[^sui]s$", word) else word


_ONE_I = str.maketrans("İı", "ii")
"""Lower case makes two characters of the first, and leaves the second apart from 'I'."""
_NOT_PLURAL = {"news", "lens", "bias", "atlas", "canvas", "gas", "chaos", "always", "whereas"}


def has_chat_template(folder: Path) -> bool:
    """Whether a model's tokenizer can put a message into a chat template, from its files alone.

    Where there are several templates, one of them must be the default. As transformers reads them:
    the files of templates stand before those in tokenizer_config.json, and `chat_template.json` is
    a picture processor's, which a tokenizer passes over.

    Raises:
        UserError: tokenizer_config.json cannot be read.
    """
    default = folder / "chat_template.jinja"
    if default.is_file():
        try:
            return bool(default.read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read {default} as UTF-8 text: {FIX}") from error
    more = folder / "additional_chat_templates"
    if any(more.glob("*.jinja")):
        return (more / "default.jinja").is_file()
    path = folder / "tokenizer_config.json"
    templates = read_json(path).get("chat_template") if path.exists() else None
    if isinstance(templates, list):
        check(templates, list[dict[str, str]], f"'chat_template' of {path}", FIX)
        check_templates(templates, str(path))
        templates = {each["name"]: each["template"] for each in templates}.get("default")
    return bool(templates)


def check_chat_template(folder: Path, model: str, instead: str) -> None:
    """Raise UserError for a model without a chat template; `instead` is the option to give."""
    if not has_chat_template(folder):
        raise UserError(f"{model} has no chat template, as base models have none: give {instead}")
