"""The tokenizer of a model's folder: its vocabulary from the files alone, and transformers' own.

Three forms are read: `tokenizer.json`, a sentencepiece model (`tokenizer.model`), and GPT-2's
`vocab.json` with `merges.txt`. The first says all of a tokenizer; the other two leave to a class
of transformers how text is split. tokenizer_config.json can name a class for any of them, so what
it makes of the files is held against them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UserError
from .files import read_json
from .tokenizer_damage import Refusing, check_beside

NAMES = (
    *("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja"),
)
SENTENCEPIECE = ("tokenizer.model", "spiece.model")
FOREIGN = ("vocab.txt", "tekken.json", "*.tiktoken")
"""Tokenizers that are not read."""
PROBE = ("The  dog's 2024 dogs\n\tран é 犬: x=(1+23);", "  two spaces", " é one")
_RUNS = ("a\n\n2024", "x\t\t3 \n b", "it's 12345,  HELLO", " é日本\n \n")
"""Runs of spaces, breaks, digits and marks, by which rules of splitting differ."""
_AS_WRITTEN = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Names of the class that takes tokenizer.json as it is."""
SAVE = "load it with transformers' AutoTokenizer and save_pretrained it there"


class Vocabulary(NamedTuple):
    """The tokens of a tokenizer's files, by id."""

    tokens: dict[int, str]
    """As the files spell them."""
    literal: frozenset[int]
    """Those whose spelling is their text: added and control tokens."""
    byte_level: bool
    """Whether the others are spelled in GPT-2's stand-ins for bytes; else with ▁ for a space."""
    byte_of: dict[int, int]
    """The byte-fallback tokens, each with its byte."""


def tokenizer_files(folder: Path) -> list[Path]:
    """What decides in a folder how text becomes ids, and a conversation text."""
    return [path for form in (*NAMES, "spiece.model", *FOREIGN) for path in folder.glob(form)]


def read_vocabulary(folder: Path) -> Vocabulary | None:
    """The vocabulary of the tokenizer in a folder; None if there is none.

    Raises:
        UserError: it is damaged, or in a form that is not read.
    """
    if (path := folder / "tokenizer.json").exists():
        return _from_json(path)
    if (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        return _from_merges(folder)
    if any((folder / name).exists() for name in SENTENCEPIECE):
        return _from_sentencepiece(folder)
    others = [path for form in (*FOREIGN, "vocab.json") for path in folder.glob(form)]
    if others:
        raise UserError(f"{folder} has {others[0].name} but no tokenizer.json: {SAVE}")
    return None


def load_tokenizer(folder: Path) -> Any:
    """transformers' tokenizer of a folder; None if it has none. Code that comes with it never runs.

    Raises:
        UserError: transformers cannot open it, or makes another vocabulary of its files or splits
            text otherwise.
    """
    complete = (folder / "tokenizer.json").exists()
    vocabulary = None if complete else read_vocabulary(folder)
    if not complete and vocabulary is None:
        return None
    if not complete and "AutoTokenizer" in (_config(folder).get("auto_map") or {}):
        raise UserError(f"the tokenizer of {folder} is code of its own, which is never run: {SAVE}")
    ignored = check_beside(folder)
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    # AutoTokenizer takes Qwen2's own class whatever a Qwen2's folder names
    named = _config(folder).get("tokenizer_class")
    auto: Any = PreTrainedTokenizerFast if complete and named in _AS_WRITTEN else AutoTokenizer
    with Refusing(f"transformers cannot open the tokenizer files in {folder}", _fix(folder)):
        tokenizer = auto.from_pretrained(folder, trust_remote_code=False, **ignored)
        tokenizer.decode(tokenizer("a")["input_ids"])  # one that opens may not work
        same = not complete or _as_tokenizer_json(tokenizer, folder / "tokenizer.json")
    if not same:
        raise UserError(
            f"transformers' {type(tokenizer).__name__} makes other ids of a text than "
            f"{folder}/tokenizer.json says: have tokenizer_config.json name "
            f'"tokenizer_class": "{_AS_WRITTEN[0]}"'
        )
    if vocabulary is not None:
        made = tokenizer.get_vocab()
        if any(made.get(token) != i for i, token in vocabulary.tokens.items()):
            raise UserError(_unopened(folder, "its class makes another vocabulary of them"))
        if not _splits_as_its_files(tokenizer, folder, vocabulary):
            raise UserError(_unopened(folder, "its class splits text otherwise than they say"))
    return tokenizer


def _as_tokenizer_json(tokenizer: Any, path: Path) -> bool:
    """Whether a text becomes the ids that tokenizer.json alone makes of it."""
    from tokenizers import Tokenizer

    alone = Tokenizer.from_file(str(path))
    alone.no_truncation()
    alone.no_padding()
    return all(
        tokenizer.encode(text, add_special_tokens=False)
        == alone.encode(text, add_special_tokens=False).ids
        for text in (*PROBE, *_RUNS)
    )


def _splits_as_its_files(tokenizer: Any, folder: Path, vocabulary: Vocabulary) -> bool:
    """On texts of all sorts: a byte-level tokenizer loses nothing of it, and a sentencepiece
    model gives the same ids."""
    return all(_same_split(tokenizer, folder, vocabulary, text) for text in PROBE)


def _same_split(tokenizer: Any, folder: Path, vocabulary: Vocabulary, text: str) -> bool:
    ids = tokenizer.encode(text, add_special_tokens=False)
    if vocabulary.byte_level:
        return bool(tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text)
    return bool(ids == _pieces(folder).encode(text))


def _unopened(folder: Path, reason: str) -> str:
    return f"transformers cannot open the tokenizer files in {folder} ({reason}): {_fix(folder)}"


def _fix(folder: Path) -> str:
    if (folder / "tokenizer.json").exists():
        return "fetch them again"
    if "tokenizer_class" in _config(folder):
        return "give tokenizer.json"
    example = "GPT2Tokenizer" if (folder / "merges.txt").exists() else "LlamaTokenizer"
    return (
        "give tokenizer.json, or name their class in tokenizer_config.json "
        f'("tokenizer_class": "{example}")'
    )


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    return read_json(path) if path.exists() else {}


def _from_json(path: Path) -> Vocabulary:
    from tokenizers import Tokenizer

    with Refusing(f"cannot read {path}", "fetch it again"):
        tokenizer = Tokenizer.from_file(str(path))
    # by their ids: one number that is wrong may be of a billion
    ids = sorted(set(tokenizer.get_vocab().values()))
    tokens = {i: token for i in ids if (token := tokenizer.id_to_token(i)) is not None}
    decoder = repr(tokenizer.decoder)
    literal = frozenset(tokenizer.get_added_tokens_decoder())
    fallback = _byte_tokens(tokens.items()) if "ByteFallback" in decoder else {}
    return Vocabulary(tokens, literal, "ByteLevel" in decoder, fallback)


def _from_merges(folder: Path) -> Vocabulary:
    path = folder / "vocab.json"
    listed = read_json(path)
    if not all(type(i) is int for i in listed.values()):
        raise UserError(f"{path} is damaged: its values are not all token ids")
    added = _added(folder)
    return Vocabulary({i: t for t, i in listed.items()} | added, frozenset(added), True, {})


def _from_sentencepiece(folder: Path) -> Vocabulary:
    pieces = _pieces(folder)
    ids = range(pieces.get_piece_size())
    with Refusing(f"cannot read the sentencepiece model in {folder}", "fetch it again"):
        tokens = dict(enumerate(pieces.id_to_piece(list(ids))))
    fallback = _byte_tokens((i, tokens[i]) for i in ids if pieces.is_byte(i))
    added = _added(folder)
    control = {i for i in ids if pieces.is_control(i) or pieces.is_unknown(i)}
    return Vocabulary(tokens | added, frozenset(control.union(added)), False, fallback)


def _pieces(folder: Path) -> Any:
    from sentencepiece import SentencePieceProcessor

    path = next(folder / name for name in SENTENCEPIECE if (folder / name).exists())
    pieces = SentencePieceProcessor()
    try:
        pieces.LoadFromSerializedProto(path.read_bytes())
    except (OSError, RuntimeError) as error:
        raise UserError(f"cannot read {path}: it is no sentencepiece model") from error
    return pieces


def _added(folder: Path) -> dict[int, str]:
    """The tokens that were added beside a vocabulary, from where transformers notes them."""
    path = folder / "added_tokens.json"
    listed = read_json(path) if path.exists() else {}
    described = _config(folder).get("added_tokens_decoder") or {}
    try:
        noted = {int(i): str(token["content"]) for i, token in described.items()}
        return {int(i): str(token) for token, i in listed.items()} | noted
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"the added tokens noted in {folder} are damaged: fetch it again"
        ) from error


def _byte_tokens(tokens: Iterable[tuple[int, str]]) -> dict[int, int]:
    """Which tokens are spelled `<0x0A>`, and the byte of each."""
    spelled = ((i, re.fullmatch("<0x([0-9A-F]{2})>", token)) for i, token in tokens)
    return {i: int(byte[1], 16) for i, byte in spelled if byte}
