"""Which tokens end a generated text, and their part in a run's key.

They are those of generation_config.json, as transformers' `generate` has it, else config.json's,
else the tokenizer's; nothing else of generation_config.json is followed. The last two files are in
the fingerprints of every model, so the ends are named beside them only where they are others than
would be expected by those: config.json's, and the special tokens that end an answer by their text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..plain_json import check
from .files import read_json, remembered

END_TEXTS = frozenset((
    *("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>"),
    *("<eos>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<end_of_utterance>"),
))  # fmt: skip
"""Control tokens that end an answer by their text, as llama.cpp has them (llama-vocab.cpp, the list
of end-of-generation tokens; without those of families that are not converted)."""
_FIX = "mend or fetch it again"


def ends_of(hf: Any, tokenizer: Any) -> tuple[int, ...]:
    """Every id that ends a text of a model in memory. A chat model has several: of a turn and of a
    text."""
    says = (getattr(hf, "generation_config", None), hf.config.get_text_config(), tokenizer)
    each = (getattr(one, "eos_token_id", None) for one in says)
    given = next((ids for ids in each if ids is not None), None)
    return tuple(i for i in _listed(given) if 0 <= i < hf.config.get_text_config().vocab_size)


def said_ends(folder: Path) -> tuple[int, ...] | None:
    """The ends that generation_config.json names; None if it names none or is not there.

    Raises:
        UserError: they are no token ids.
    """
    path = folder / "generation_config.json"
    if not path.exists():
        return None
    said = read_json(path).get("eos_token_id")
    check(said, int | list[int] | None, f"'eos_token_id' of {path}", _FIX)
    return None if said is None else _listed(said)


def ends_print(folder: Path, config: Mapping[str, Any], tokenizer_sha: str) -> dict[str, str]:
    """The fingerprint of the ends; none where they follow from config.json and the tokenizer.

    Args:
        config: config.json's content.
        tokenizer_sha: over the tokenizer's files.
    """
    said, inner = said_ends(folder), config.get("text_config")
    own = config.get("eos_token_id")
    own = inner.get("eos_token_id") if own is None and isinstance(inner, dict) else own
    check(own, int | list[int] | None, f"'eos_token_id' of {folder / 'config.json'}", _FIX)
    if own is None and said is None:
        return {}
    ends = _listed(own) if said is None else said
    by_text = remembered(
        f"{tokenizer_sha}|ends by text", r"\[[\d, ]*\]", lambda: json.dumps(_by_text(folder))
    )
    if own is not None and ends == _listed([*_listed(own), *json.loads(by_text)]):
        return {}
    return {"ends of a text": " ".join(map(str, ends))}


def _by_text(folder: Path) -> list[int]:
    """The special tokens of tokenizer.json that end an answer by their text."""
    path = folder / "tokenizer.json"
    added = (read_json(path).get("added_tokens") or []) if path.exists() else []
    try:
        return sorted(
            int(token["id"]) for token in added
            if token.get("special") and token["content"] in END_TEXTS
        )  # fmt: skip
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"the added tokens of {path} are damaged: fetch it again") from error


def _listed(ids: Any) -> tuple[int, ...]:
    """One id or several, each once."""
    return tuple(dict.fromkeys(ids if isinstance(ids, list) else [] if ids is None else [ids]))
