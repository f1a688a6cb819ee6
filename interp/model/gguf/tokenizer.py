"""The tokenizer of a GGUF file -> tokenizer.json and tokenizer_config.json.

Two kinds: byte-level BPE (`gpt2`), with the file's merges and the rule it names, and SentencePiece
BPE (`llama`), whose merges follow from its tokens and their scores: the two neighbours whose union
has the highest score are joined first. Both are written so that `tokenizer(text)` puts BOS where
`add_bos_token` says.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UserError
from .file import GgufFile
from .pre_tokenizers import BOS_UNLESS_SAID, RULES, WHOLE_WORDS, pre_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_PREFIX = "tokenizer.ggml."
_UNKNOWN, CONTROL, _USER_DEFINED = 2, 3, 4
"""Types of token; the others (normal, unused, bytes) are no more than entries of the vocabulary."""
_SPECIAL = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
    "sep_token": "seperator_token_id",
    "mask_token": "mask_token_id",
}
_READ = {
    *("model", "pre", "tokens", "scores", "token_type", "merges", *_SPECIAL.values()),
    *("add_bos_token", "add_eos_token", "add_space_prefix", "eot_token_id", "eom_token_id"),
}
_SAYS_NOTHING = {"token_type_count", "cls_token_id"}
"""Keys that change no token; the tokens of fill-in-the-middle, too."""


def write_tokenizer(file: GgufFile, out: Path) -> None:
    """Write the tokenizer's files; none if the file has no tokenizer.

    Raises:
        UserError: a kind of tokenizer, a rule or a key that is unknown.
    """
    said = {
        key.removeprefix(_PREFIX): value
        for key, value in file.metadata.items()
        if key.startswith(_PREFIX)
    }
    kind = said.get("model", "none")
    if kind in ("none", "no_vocab"):
        return
    _check_keys(file, said)
    if kind not in ("gpt2", "llama"):
        raise UserError(
            f"{file.path.name} has a tokenizer of the kind '{kind}', which cannot be converted "
            "(gpt2 and llama can)"
        )
    tokens = _tokens(file, said)
    tokenizer = _byte_level(file, said) if kind == "gpt2" else _sentencepiece(file, said)
    _add_marked(tokenizer, said, tokens)
    _add_ends(tokenizer, file, said, _adds_bos(said), bool(said.get("add_eos_token", False)))
    tokenizer.save(str(out / "tokenizer.json"))
    named = {name: tokens[said[key]] for name, key in _SPECIAL.items() if said.get(key) is not None}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        **named,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False))
    if template := file.metadata.get("tokenizer.chat_template"):
        (out / "chat_template.jinja").write_text(template)


def _check_keys(file: GgufFile, said: dict[str, Any]) -> None:
    """Raise UserError for a key that may change the tokens and that nothing here reads."""
    for key in sorted(said.keys() - _READ - _SAYS_NOTHING):
        # false, 0 and nothing are what holds anyway
        if said[key] and not key.startswith(("fim_", "prefix_", "suffix_", "middle_")):
            raise UserError(
                f"{file.path.name} has '{_PREFIX}{key}', which the conversion does not know and "
                "which may change the tokens: it cannot be converted"
            )


def _tokens(file: GgufFile, said: dict[str, Any]) -> list[str]:
    tokens = said.get("tokens", [])
    types = said.setdefault("token_type", [1] * len(tokens))
    ids = [said[key] for key in _SPECIAL.values() if said.get(key) is not None]
    if len(set(tokens)) != len(tokens) or len(types) != len(tokens) or "" in tokens:
        raise UserError(f"{file.path.name} has a damaged list of tokens: it cannot be converted")
    if not all(0 <= i < len(tokens) for i in ids):
        raise UserError(f"{file.path.name} names a special token that it has not")
    return list(tokens)


def _adds_bos(said: dict[str, Any]) -> bool:
    """Whether BOS goes before a text: as the file says, or else as llama.cpp takes it."""
    default = said["model"] == "llama" or said.get("pre") in BOS_UNLESS_SAID
    return bool(said.get("add_bos_token", default))


def _byte_level(file: GgufFile, said: dict[str, Any]) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models

    name = said.get("pre")
    if name not in RULES:
        what = f"the rule '{name}', which is unknown" if name else "no rule"
        raise UserError(
            f"{file.path.name} names {what} for cutting text into pieces (tokenizer.ggml.pre): "
            "convert it again with a newer llama.cpp, or use the model's own files"
        )
    if said.get("add_space_prefix"):
        raise UserError(f"{file.path.name} puts a space before a text: it cannot be converted")
    vocabulary = {token: i for i, token in enumerate(said["tokens"])}
    # of one that is there twice the first counts, as llama.cpp has it
    merges = [tuple(merge.split(" ", 1)) for merge in dict.fromkeys(said.get("merges", []))]
    if lost := [m for m in merges if len(m) != 2 or not {*m, "".join(m)} <= vocabulary.keys()]:
        raise UserError(f"{file.path.name} merges {lost[0]}, which are no tokens")
    model = models.BPE(vocabulary, merges, ignore_merges=name in WHOLE_WORDS)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer(name)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(file: GgufFile, said: dict[str, Any]) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, normalizers

    tokens, scores = said["tokens"], said.get("scores", [])
    if len(scores) != len(tokens):
        raise UserError(f"{file.path.name} has no score for each token: it cannot be converted")
    vocabulary = {token: i for i, token in enumerate(tokens)}
    unknown = [token for token, kind in zip(tokens, said["token_type"], strict=True)
               if kind == _UNKNOWN]  # fmt: skip
    if said.get("unknown_token_id") is not None:
        unknown.insert(0, tokens[said["unknown_token_id"]])
    tokenizer = Tokenizer(
        models.BPE(
            vocabulary,
            _merges(vocabulary, scores, said["token_type"]),
            unk_token=unknown[0] if unknown else None,
            fuse_unk=True,
            byte_fallback="<0x00>" in vocabulary,
        )
    )
    before = [normalizers.Prepend("▁")] if said.get("add_space_prefix", True) else []
    tokenizer.normalizer = normalizers.Sequence([*before, normalizers.Replace(" ", "▁")])
    after = [decoders.Strip(" ", 1, 0)] if before else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *after]
    )
    return tokenizer


def _merges(
    vocabulary: dict[str, int], scores: list[float], types: list[int]
) -> list[tuple[str, str]]:
    """Every way to make a token of two, the highest score first.

    Control tokens and those a user defined are never merged: they are found whole in the text.
    """
    whole = {CONTROL, _USER_DEFINED, _UNKNOWN}
    found = []
    for token, i in vocabulary.items():
        if types[i] in whole:
            continue
        for at in range(1, len(token)):
            left, right = vocabulary.get(token[:at]), vocabulary.get(token[at:])
            if left is not None and right is not None:
                found.append((-scores[i], left, right))
    found.sort()
    tokens = list(vocabulary)
    return [(tokens[left], tokens[right]) for _, left, right in found]


def _add_marked(tokenizer: Tokenizer, said: dict[str, Any], tokens: list[str]) -> None:
    """The tokens that are found whole in a text, before anything else is done to it."""
    from tokenizers import AddedToken

    types = said["token_type"]
    special = {said[key] for key in _SPECIAL.values() if said.get(key) is not None}
    control = [token for i, token in enumerate(tokens) if types[i] == CONTROL or i in special]
    defined = [token for i, token in enumerate(tokens)
               if types[i] == _USER_DEFINED and i not in special]  # fmt: skip
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in control])
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=False) for t in defined])


def _add_ends(
    tokenizer: Tokenizer, file: GgufFile, said: dict[str, Any], bos: bool, eos: bool
) -> None:
    """BOS before and EOS after every text, where the model has been trained so."""
    from tokenizers import processors

    ends = {}
    for wanted, key in ((bos, "bos_token_id"), (eos, "eos_token_id")):
        if wanted:
            if said.get(key) is None:
                raise UserError(f"{file.path.name} adds a token to every text and has no '{key}'")
            ends[key] = (said["tokens"][said[key]], said[key])
    before = [ends["bos_token_id"][0]] if bos else []
    after = [ends["eos_token_id"][0]] if eos else []
    if ends:
        single = [*before, "$A", *after]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=single,
            pair=[*single, *before, "$B:1", *after],
            special_tokens=list(ends.values()),
        )
