"""What stands beside a tokenizer, checked before a library builds one of it; and what the libraries
raise at files that they cannot take, as one line."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import UserError, reason
from ..plain_json import check
from .files import read_json

FIX = "mend it or fetch it again"
TOKENS = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
_FLAG = bool | None
_KINDS: dict[str, Any] = {
    **dict.fromkeys(("add_bos_token", "add_eos_token", "add_prefix_space"), _FLAG),
    **dict.fromkeys(("clean_up_tokenization_spaces", "split_special_tokens"), _FLAG),
    **dict.fromkeys(TOKENS, str | dict[str, Any] | None),
    **dict.fromkeys(("padding_side", "truncation_side", "tokenizer_class"), str | None),
    **dict.fromkeys(
        ("additional_special_tokens", "extra_special_tokens"),
        list[str | dict[str, Any]] | dict[str, str | dict[str, Any]] | None,
    ),
    "model_max_length": int | float | None,
    "chat_template": str | list[dict[str, str]] | dict[str, str] | None,
    "added_tokens_decoder": dict[str, dict[str, Any]] | None,
}
"""Fields of tokenizer_config.json and special_tokens_map.json that are read."""
_TOKEN: dict[str, Any] = {
    "content": str,
    **dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word", "special"), bool),
    "__type": str,
}
"""What describes a token."""
_RAISED = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, OSError),
    *(RuntimeError, TypeError, ValueError),
)


class Refusing:
    """Around calls of tokenizers, sentencepiece or transformers: what they raise at files that are
    not theirs becomes a line that ends in `fix`.

    Raises:
        UserError: for any of it. The Rust library raises `Exception` itself, and where it gives up
            a class of pyo3's that has no name to catch it by.
    """

    def __init__(self, problem: str, fix: str = FIX) -> None:
        self.problem, self.fix = problem, fix

    def __enter__(self) -> None:
        return

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None or kind is UserError:
            return
        if issubclass(kind, _RAISED) or kind is Exception or kind.__module__ == "pyo3_runtime":
            said = reason(error or kind())
            raise UserError(f"{self.problem} ({said}): {self.fix}") from error


def check_beside(folder: Path) -> dict[str, None]:
    """Check what a folder has beside its vocabulary; the paths that it names, as options that make
    transformers pass over them.

    Raises:
        UserError: a file that cannot be read, or a field of another kind than transformers writes.
    """
    named: dict[str, None] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / name
        content = read_json(path) if path.exists() else {}
        for field, kind in _KINDS.items():
            check(content.get(field), kind | None, f"'{field}' of {path}", FIX)
        for field in (*TOKENS, "additional_special_tokens", "extra_special_tokens"):
            _check_tokens(content.get(field), f"'{field}' of {path}")
        _check_tokens(
            list((content.get("added_tokens_decoder") or {}).values()), f"a token of {path}"
        )
        check_templates(content.get("chat_template"), str(path))
        if content.get("init_inputs"):
            raise UserError(f"{path} has 'init_inputs', which are not followed: take them out")
        named |= dict.fromkeys(field for field in content if field.endswith("_file"))
    return named


def check_templates(templates: Any, where: str) -> None:
    """Raise UserError for a list of templates of which one has no name or no text."""
    if isinstance(templates, list) and any({"name", "template"} - set(t) for t in templates):
        raise UserError(f"a template of {where} has no name or no template: {FIX}")


def _check_tokens(value: Any, where: str) -> None:
    """One token, or several."""
    if isinstance(value, list):
        for each in value:
            _check_tokens(each, where)
    elif isinstance(value, dict) and "content" in value:
        for field, given in value.items():
            check(given, _TOKEN.get(field, Any), f"'{field}' in {where}", FIX)
    elif isinstance(value, dict) and not all(
        isinstance(each, str | dict) for each in value.values()
    ):
        raise UserError(f"{where} describes no token: {FIX}")
