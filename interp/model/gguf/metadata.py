"""The metadata of a GGUF file under its architecture's name: every key is used, or it is an error.

A key that is passed over (a scale, a cap, a window) leaves a model that runs and computes
something else.
"""

from __future__ import annotations

import math
from typing import Any

from ...errors import UserError
from ...plain_json import check
from .file import GgufFile

_SAYS_NOTHING = {"rope.scaling.finetuned", "tensor_data_layout"}
"""Keys that change no number."""


_KINDS: dict[str, Any] = {
    **dict.fromkeys(("model", "pre"), str | None),
    **dict.fromkeys(("tokens", "merges"), list[str] | None),
    "scores": list[float] | None,
    "token_type": list[int] | None,
    **dict.fromkeys(("add_bos_token", "add_eos_token", "add_space_prefix"), bool | None),
    **dict.fromkeys(
        (f"{name}_token_id" for name in (
            "bos", "eos", "eot", "eom", "unknown", "padding", "seperator", "mask"
        )),
        int | None,
    ),
}  # fmt: skip
"""Of which kind the values are under `tokenizer.ggml.`."""


def check_kinds(file: GgufFile) -> None:
    """Raise UserError for a value about the tokenizer of another kind than the format has it."""
    kinds = {f"tokenizer.ggml.{key}": kind for key, kind in _KINDS.items()}
    for key, kind in {**kinds, "tokenizer.chat_template": str | None}.items():
        check(file.metadata.get(key), kind, f"'{key}' in {file.path}", "fetch it again")


class Metadata:
    """What a file says of its architecture; remembers which keys have been asked for."""

    def __init__(self, file: GgufFile) -> None:
        self.file = file
        self.architecture = file.metadata.get("general.architecture")
        if not isinstance(self.architecture, str):
            raise self.refusal("does not say which architecture it is")
        prefix = f"{self.architecture}."
        self.values = {
            key.removeprefix(prefix): value
            for key, value in file.metadata.items()
            if key.startswith(prefix)
        }
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        """A value; a list with one value for all layers is that value."""
        self.asked.add(key)
        value = self.values.get(key, default)
        if isinstance(value, list) and value and all(v == value[0] for v in value):
            return value[0]
        return value

    def size(self, key: str, default: int | None = None) -> int:
        """A whole number above 0.

        Raises:
            UserError: it is missing and has no default, or is none.
        """
        value = self.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.refusal(f"has {_short(value)} as '{self.architecture}.{key}'")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A number above 0; where there is a default, 0 stands for it.

        Raises:
            UserError: it is missing and has no default, or is none.
        """
        value = self.get(key) or default
        if isinstance(value, bool | str | list | None) or not 0 < value < math.inf:
            raise self.refusal(f"has {_short(value)} as '{self.architecture}.{key}'")
        return float(value)

    def check_all_asked(self) -> None:
        """Raise UserError for a key that nothing has asked for and that may change a number."""
        if self.get("attention.causal", True) is not True:
            raise self.refusal("is no causal language model")
        for key in sorted(self.values.keys() - self.asked - _SAYS_NOTHING):
            # llama.cpp takes 0 for "none" wherever a key may be missing
            if self.values[key] or isinstance(self.values[key], str):
                raise self.refusal(
                    f"has '{self.architecture}.{key}' = {_short(self.values[key])}, which the "
                    "conversion does not know and which may change the model's numbers"
                )

    def refusal(self, what: str) -> UserError:
        return UserError(f"{self.file.path.name} {what}: it cannot be converted")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]} …"
