"""What text becomes: the token ids that a model expects, decided once a model from its tokenizer.

`start` is what stands before a text: by default what `tokenizer(text)` puts there itself (Gemma's
and Llama's `<bos>`, nothing for GPT-2 and SmolLM2). Fed without it, a model that was trained with
it is another model: Gemma 3 270M's loss on text rises from 2.7 to 4.7 nats (docs/models.md).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from ..errors import UserError
from .files import remembered
from .tokenizer_files import load_tokenizer
from .vocabulary import byte_level

Bos = Literal["auto", "always", "never"]
"""Whether a BOS token stands before a text: as the tokenizer has it, always, or never."""


class Prompting:
    """A tokenizer, and what goes before the texts that it encodes.

    Args:
        tokenizer: transformers' tokenizer; None for a model of ids alone.
        bos: "auto" follows the tokenizer.

    Raises:
        UserError: "always" with a tokenizer that has no BOS token.
    """

    def __init__(self, tokenizer: Any, bos: Bos = "auto") -> None:
        self._tokenizer, self.bos = tokenizer, bos
        self.start: tuple[int, ...] = () if tokenizer is None else _start(tokenizer, bos)
        """The ids before each text."""

    @property
    def tokenizer(self) -> Any:
        if self._tokenizer is None:
            raise UserError(
                "this model has no tokenizer, so it reads no text: add one to its folder, or where "
                "there is a --corpus, give one of ids (.safetensors)"
            )
        return self._tokenizer

    def fed(self, bos: Bos) -> Prompting:
        """The same tokenizer, with what else goes before a text."""
        return Prompting(self._tokenizer, bos)

    @property
    def reads_text(self) -> bool:
        """Whether there is a tokenizer."""
        return self._tokenizer is not None

    @cached_property
    def special(self) -> tuple[int, ...]:
        """The ids that are no text: BOS and the other special tokens, but not the unknown word."""
        if self._tokenizer is None:
            return ()
        added = self._tokenizer.added_tokens_decoder.items()
        named = dict(self._tokenizer.special_tokens_map)
        unknown = named.pop("unk_token", None)
        if named.get("pad_token") == unknown:  # as Llama 2 is used: padding is masked anyway
            named.pop("pad_token", None)
        ids = {i for i, token in added if token.special and str(token) != str(unknown)}
        for given in named.values():
            names = given if isinstance(given, list) else [given]
            named_ids = (self._tokenizer.convert_tokens_to_ids(str(name)) for name in names)
            ids |= {i for i in named_ids if i is not None}  # some name what is no token
        return tuple(sorted(ids.union(self.start)))

    def plain(self, text: str) -> list[int]:
        """A text's own ids: nothing before it, nothing after it."""
        if not isinstance(text, str):
            raise UserError(f"{type(text).__name__} is no text: give a string, or ids to `pad`")
        try:
            return list(self.tokenizer.encode(text, add_special_tokens=False))
        except (TypeError, UnicodeEncodeError) as error:
            # the Rust library says only that it wants a text
            raise UserError(f"{text[:40]!r} is no text: it holds half a character") from error

    def ids(self, text: str) -> list[int]:
        """A text as the model expects it: what `start` holds, once, and the text's own ids.

        Raises:
            UserError: a text without tokens.
        """
        if not (own := self.plain(text)):
            raise UserError("an empty prompt: give at least one token")
        return self.started(own)

    def started(self, ids: Sequence[int]) -> list[int]:
        """Ids with `start` before them, if they do not begin with it."""
        here = tuple(ids[: len(self.start)])
        return [*(() if here == self.start else self.start), *ids]

    def chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """A conversation in the model's template, ready for the assistant's turn: the template's
        own tokens, after `start` where the template leaves it out.

        Raises:
            UserError: no template, or messages that it cannot take.
        """
        return self.templated(self.chat_text(messages))

    def templated(self, text: str) -> list[int]:
        """The ids of a text that a template made, after `start` if the template leaves it out."""
        own = self.plain(text)
        return own if set(self.start) <= set(own) else [*self.start, *own]

    def chat_text(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The text that `chat` encodes."""
        from jinja2 import TemplateError

        if not self.tokenizer.chat_template:
            raise UserError("this model has no chat template: give the prompt as plain text")
        if not messages:
            raise UserError("an empty conversation: give at least one message")
        if wrong := [m for m in messages if not {"role", "content"} <= set(m)]:
            raise UserError(f"every message needs a role and a content: {wrong[0]!r} lacks one")
        try:
            text: str = self.tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=True
            )
        # what its author made it raise, and what an expression of his may
        except (
            *(TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError),
            *(TypeError, ValueError),
        ) as error:
            raise UserError(f"the chat template refuses the messages: {error}") from error
        return text

    def text(self, ids: Sequence[int]) -> str:
        """Ids as text; those of a model without a tokenizer as `#id`."""
        if self._tokenizer is None:
            return " ".join(f"#{i}" for i in ids)
        return str(self._tokenizer.decode(list(ids)))

    def record(self) -> dict[str, Any]:
        """How text was fed, for a manifest."""
        if self._tokenizer is None:
            return {"bos": self.bos, "before each text": None}
        names = self._tokenizer.convert_ids_to_tokens(list(self.start))
        return {"bos": self.bos, "before each text": names}


def _start(tokenizer: Any, bos: Bos) -> tuple[int, ...]:
    if bos == "never":
        return ()
    # the ids of a text and of the same with what the tokenizer adds, which may be an end token too
    plain = tokenizer.encode("a", add_special_tokens=False)
    whole = tokenizer("a")["input_ids"]
    ends = (i for i in range(len(whole) + 1) if whole[i : i + len(plain)] == plain)
    start = tuple(whole[: next(ends, 0)])
    if start or bos == "auto":
        return start
    if tokenizer.bos_token_id is None:
        raise UserError("this tokenizer has no BOS token: leave --bos at auto")
    return (int(tokenizer.bos_token_id),)


def start_of(folder: Path, tokenizer_sha: str, bos: Bos) -> tuple[int, ...]:
    """`Prompting.start` of the tokenizer in a folder, remembered by its files' hash: it goes into
    every run's key, and a tokenizer takes seconds to load."""
    about = f"{tokenizer_sha}|{bos}|transformers {metadata.version('transformers')}"
    made = remembered(
        about, r"\[[\d, ]*\]", lambda: json.dumps(Prompting(load_tokenizer(folder), bos).start)
    )
    return tuple(json.loads(made))


def one_token(prompting: Prompting, word: str, size: int) -> int:
    """The id of a word that is one token; of one that is bytes, as it is shown (`\\xe0`); or of any
    other, `#id`.

    Args:
        size: of the vocabulary.

    Raises:
        UserError: it is several; the message shows them.
    """
    ids = prompting.plain(word)
    if len(ids) == 1:
        return ids[0]
    if (found := _of_bytes(prompting.tokenizer, word)) is not None:
        return found
    if re.fullmatch(r"#\d+", word) and int(word[1:]) < size:
        return int(word[1:])
    pieces = ", ".join(repr(prompting.text([piece])) for piece in ids)
    raise UserError(f"{word!r} is {len(ids)} tokens ({pieces}): give one of them")


def _of_bytes(tokenizer: Any, word: str) -> int | None:
    """The id of a token that is no UTF-8 by itself, by what `token_strings` shows of it: no text
    is encoded as it alone."""
    content = re.sub(rb"\\x([0-9a-f]{2})", lambda m: bytes.fromhex(m[1].decode()), word.encode())
    if content == word.encode():
        return None
    names = [f"<0x{content.hex().upper()}>"] if len(content) == 1 else []
    for name in (*names, byte_level(content)):
        found = tokenizer.convert_tokens_to_ids(name)
        # 'à' is spelled as GPT-2 spells \xe0, but is a text of its own
        own = found is not None and tokenizer.convert_ids_to_tokens(found) == name
        if own and "\ufffd" in tokenizer.decode([found]):
            return int(found)
    return None
