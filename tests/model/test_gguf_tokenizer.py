"""The tokenizer of a GGUF file cuts text as the model's own does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer

from interp.errors import UserError
from interp.model.gguf.file import GgufFile
from interp.model.gguf.pre_tokenizers import RULES, pre_tokenizer
from interp.model.gguf.tokenizer import write_tokenizer
from interp.model.vocabulary import token_strings

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
TEXTS = ["\n\n2024", "  2024", "x\t\t3", "it's 12345, HELLO", " é日本\n \n", "a  b <|user|>1"]


def file(said: dict[str, Any], **more: Any) -> GgufFile:
    metadata = {f"tokenizer.ggml.{key}": value for key, value in (said | more).items()}
    return GgufFile(Path("made.gguf"), {k: v for k, v in metadata.items() if v is not None}, {})


def byte_vocabulary() -> dict[str, Any]:
    """All bytes and some merges, BOS, EOS and a token that a user defined."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [
        "Ċ Ċ",
        "ĉ ĉ",
        "Ġ Ġ",
        "2 0",
        "20 2",
        "202 4",
        "1 2",
        "12 3",
        "Ġ 2",
        "' s",
        "L L",
        "Ġ 1",
    ]
    tokens = ["<s>", "</s>", "<|user|>", *alphabet, *(m.replace(" ", "") for m in merges)]
    types = [CONTROL, CONTROL, USER_DEFINED] + [NORMAL] * (len(tokens) - 3)
    return {
        "model": "gpt2", "pre": "gpt-2", "tokens": tokens, "token_type": types, "merges": merges,
        "bos_token_id": 0, "eos_token_id": 1,
    }  # fmt: skip


def converted(said: dict[str, Any], out: Path, model_type: str = "llama", **more: Any) -> Any:
    """As transformers opens it from a folder, saved once more and opened from there."""
    (out / "config.json").write_text(json.dumps({"model_type": model_type}))
    write_tokenizer(file(said, **more), out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    tokenizer.save_pretrained(out / "again")
    (out / "again" / "config.json").write_text(json.dumps({"model_type": model_type}))
    again = AutoTokenizer.from_pretrained(out / "again")
    for text in TEXTS:
        assert tokenizer(text)["input_ids"] == again(text)["input_ids"]
    return again


# pieces by hand: '|' parts them
PIECES = {
    "gpt-2": ["⏎|⏎|2024", "␣|␣2024", "x|⇥|⇥|3", "it|'s|␣12345|,|␣HELLO"],
    "smollm": ["⏎⏎|2|0|2|4", "␣␣|2|0|2|4", "x|⇥⇥|3", "it|'s|␣|1|2|3|4|5|,|␣HELLO"],
    "default": ["⏎|⏎|202|4", "␣|␣|202|4", "x|⇥|⇥|3", "it|'|s|␣|123|45|,|␣HELLO"],
    "falcon": ["⏎|⏎|202|4", "␣|␣|202|4", "x|⇥|⇥|3", "it|'|s|␣|123|45|,|␣HELLO"],
    "llama-bpe": ["⏎⏎|202|4", "␣|␣|202|4", "x|⇥|⇥|3", "it|'s|␣|123|45|,|␣HELLO"],
    "qwen2": ["⏎⏎|2|0|2|4", "␣|␣|2|0|2|4", "x|⇥|⇥|3", "it|'s|␣|1|2|3|4|5|,|␣HELLO"],
    "gpt-4o": ["⏎⏎|202|4", "␣|␣|202|4", "x|⇥|⇥|3", "it's|␣|123|45|,|␣HELLO"],
    "tekken": ["⏎⏎|2|0|2|4", "␣|␣|2|0|2|4", "x|⇥|⇥|3", "it|'s|␣|1|2|3|4|5|,|␣HELLO"],
    "superbpe": ["⏎⏎|2|024", "␣␣|2|024", "x⇥⇥|3", "it's␣|12|345|,␣HELLO"],
    "bloom": ["⏎⏎|2024", "␣|␣2024", "x|⇥⇥|3", "it's|␣12345|,|␣HELLO"],
    "viking": ["⏎⏎|2|0|2|4", "␣|␣|2|0|2|4", "x|⇥⇥|3", "it's|␣|1|2|3|4|5|,|␣HELLO"],
    "deepseek-llm": ["⏎|⏎|2024", "␣␣|2024", "x|⇥⇥|3", "it|'|s|␣|12345|,|␣HELLO"],
    "deepseek-coder": ["⏎|⏎|2|0|2|4", "␣␣|2|0|2|4", "x|⇥⇥|3", "it|'|s|␣|1|2|3|4|5|,|␣HELLO"],
    "deepseek-v3": ["⏎⏎|202|4", "␣␣|202|4", "x|⇥⇥|3", "it|'s|␣|123|45|,|␣HELLO"],
    "chameleon": ["⏎|⏎|2|0|2|4", "␣␣|2|0|2|4", "x|⇥|⇥|3", "it|'|s|␣|1|2|3|4|5|,|␣HELLO"],
}


@pytest.mark.parametrize("name", PIECES)
def test_text_is_cut_as_the_rule_says(name):
    for text, pieces in zip(TEXTS, PIECES[name], strict=False):
        cut = [text[start:end] for _, (start, end) in pre_tokenizer(name).pre_tokenize_str(text)]
        shown = "|".join(cut).replace("\n", "⏎").replace("\t", "⇥").replace(" ", "␣")
        assert shown == pieces


def test_every_rule_keeps_every_character():
    text = "\n\n it's 2024, «ABCdef»  x\t\t3\r\n日本語テキスト Ünï <tag> \u0301"
    for name in RULES:
        cut = pre_tokenizer(name).pre_tokenize_str(text)
        assert "".join(text[start:end] for _, (start, end) in cut) == text, name


@pytest.mark.parametrize("name", ["smollm", "starcoder", "refact", "command-r"])
def test_digits_stand_alone_as_in_smollms_own_tokenizer(name, tmp_path):
    """Against a tokenizer built by hand as HuggingFaceTB/SmolLM2 has it in its tokenizer.json."""
    said = byte_vocabulary()
    vocabulary = {token: i for i, token in enumerate(said["tokens"])}
    own = Tokenizer(models.BPE(vocabulary, [tuple(m.split(" ")) for m in said["merges"]]))
    own.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True),
         pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )  # fmt: skip
    own.add_special_tokens(["<|user|>"])
    tokenizer = converted(said, tmp_path, pre=name)
    for text in TEXTS:
        assert tokenizer(text)["input_ids"] == own.encode(text).ids
    assert tokenizer.tokenize("\n\n2024") == ["ĊĊ", "2", "0", "2", "4"]
    assert tokenizer.tokenize("  2024") == ["ĠĠ", "2", "0", "2", "4"]
    assert tokenizer.tokenize("x\t\t3") == ["x", "ĉĉ", "3"]


@pytest.mark.parametrize("name", ["some-nonsense", "kimi-k2", "afmoe", None, ""])
def test_an_unknown_rule_is_an_error_that_says_so(name, tmp_path):
    said = byte_vocabulary()
    with pytest.raises(UserError, match=r"\(tokenizer.ggml.pre\): convert it again"):
        write_tokenizer(file(said, pre=name), tmp_path)


@pytest.mark.parametrize(
    ("rule", "says", "expected"),
    [
        ("gpt-2", None, False), ("gpt-2", True, True), ("gpt-2", False, False),
        ("llama-bpe", None, True), ("llama-bpe", False, False), ("tekken", None, True),
        ("qwen2", None, False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gpt2"])
def test_bos_goes_where_the_file_says(rule, says, expected, model_type, tmp_path):
    """And by llama.cpp's default where it says nothing; whatever class the family has."""
    more = {} if says is None else {"add_bos_token": says}
    tokenizer = converted(byte_vocabulary(), tmp_path, model_type, pre=rule, **more)
    ids = tokenizer("x", "y")["input_ids"]
    assert (ids[0] == 0, ids.count(0)) == (expected, 2 * expected)
    assert tokenizer("x", add_special_tokens=False)["input_ids"] == [tokenizer.vocab["x"]]


def test_eos_goes_after_a_text_where_the_file_says(tmp_path):
    said = byte_vocabulary() | {"add_eos_token": True, "add_bos_token": True}
    assert converted(said, tmp_path)("x")["input_ids"] == [0, said["tokens"].index("x"), 1]


def test_marked_tokens_are_found_whole_and_control_tokens_are_special(tmp_path):
    tokenizer = converted(byte_vocabulary(), tmp_path)
    ids = tokenizer("a<|user|></s>b")["input_ids"]
    assert ids == [tokenizer.vocab["a"], 2, 1, tokenizer.vocab["b"]]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a<|user|>b"
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")
    assert len(tokenizer) == len(byte_vocabulary()["tokens"])
    assert token_strings(tmp_path, 3) == ["<s>", "</s>", "<|user|>"]


def test_text_comes_back(tmp_path):
    tokenizer = converted(byte_vocabulary(), tmp_path, pre="llama-bpe")
    for text in TEXTS:
        assert tokenizer.decode(tokenizer(text)["input_ids"][1:]) == text


def test_a_piece_that_is_a_token_needs_no_merges_where_llama_3_has_none(tmp_path):
    """'ignore_merges': '202' is a token here, though no merges lead to it."""
    said = byte_vocabulary()
    said["merges"] = [m for m in said["merges"] if m != "20 2"]
    assert converted(said, tmp_path, pre="llama-bpe").tokenize("202") == ["202"]
    other = tmp_path / "other"
    other.mkdir()
    assert converted(said, other, pre="dbrx").tokenize("202") == ["20", "2"]


def test_the_chat_template_is_kept(tmp_path):
    template = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    made = file(byte_vocabulary())
    made.metadata["tokenizer.chat_template"] = template
    write_tokenizer(made, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    assert chat == "[user]x"


# SentencePiece


def pieces(defined: str = "  ") -> dict[str, Any]:
    """A small vocabulary with scores in no order of ids, bytes, and a token with spaces."""
    words = [
        "▁",
        "a",
        "b",
        "n",
        "d",
        "▁a",
        "nd",
        "an",
        "and",
        "▁and",
        "ab",
        "▁b",
        "é",
        "日",
        "ba",
        "nda",
    ]
    scores = np.random.default_rng(3).permutation(len(words))
    tokens = [
        "<unk>",
        "<s>",
        "</s>",
        defined,
        "<tag>",
        *(f"<0x{i:02X}>" for i in range(256)),
        *words,
    ]
    types = [UNKNOWN, CONTROL, CONTROL, USER_DEFINED, USER_DEFINED, *[BYTE] * 256]
    return {
        "model": "llama", "tokens": tokens, "token_type": types + [NORMAL] * len(words),
        "scores": [0.0] * 261 + [-float(s) for s in scores],
        "bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0,
    }  # fmt: skip


def reference(said: dict[str, Any], space: bool) -> sentencepiece.SentencePieceProcessor:
    """SentencePiece itself with the same pieces."""
    proto = sentencepiece_model_pb2.ModelProto()
    for token, score, kind in zip(said["tokens"], said["scores"], said["token_type"], strict=True):
        blank = kind == USER_DEFINED and not token.strip(" ")
        proto.pieces.add(piece="▁" * len(token) if blank else token, score=score, type=kind)
    proto.trainer_spec.model_type = 2
    proto.trainer_spec.byte_fallback = True
    proto.normalizer_spec.name = "identity"
    proto.normalizer_spec.add_dummy_prefix = space
    proto.normalizer_spec.remove_extra_whitespaces = False
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(proto.SerializeToString())
    return processor


@pytest.mark.parametrize("space", [False, True])
@pytest.mark.parametrize("model_type", ["llama", "gemma3_text"])
def test_as_sentencepiece_itself(space, model_type, tmp_path):
    """Random texts; no model has both a space before the text and a token of spaces."""
    said = pieces("<two>" if space else "  ")
    own = reference(said, space)
    tokenizer = converted(said, tmp_path, model_type, add_space_prefix=space)
    random = np.random.default_rng(0)
    texts = ["".join(random.choice([*"aabbnd   é日ü\n"], 30)) for _ in range(200)]
    for text in [*texts, "and and", "band", "   a", "", "ü"]:
        assert tokenizer(text)["input_ids"] == [1, *own.encode(text)], text
        assert tokenizer.decode(tokenizer(text)["input_ids"][1:]) == own.decode(own.encode(text))


def test_bos_and_the_space_are_there_unless_a_sentencepiece_file_says_no(tmp_path):
    said = pieces("<two>")
    tokenizer = converted(said, tmp_path)
    assert tokenizer.convert_ids_to_tokens(tokenizer("and")["input_ids"])[:2] == ["<s>", "▁and"]
    plain = tmp_path / "plain"
    plain.mkdir()
    tokenizer = converted(said, plain, add_bos_token=False, add_space_prefix=False)
    assert tokenizer.tokenize("and") == ["and"]
    assert tokenizer("and")["input_ids"][0] != 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "bert"}, "kind 'bert'"),
        ({"model": "t5"}, "kind 't5'"),
        ({"scores": None}, "no score for each token"),
        ({"precompiled_charsmap": [1, 2]}, "has 'tokenizer.ggml.precompiled_charsmap'"),
        ({"normalizer.lowercase": True}, "has 'tokenizer.ggml.normalizer.lowercase'"),
        ({"add_sep_token": True}, "has 'tokenizer.ggml.add_sep_token'"),
        ({"bos_token_id": None}, "adds a token to every text and has no 'bos_token_id'"),
        ({"eos_token_id": 99999}, "names a special token that it has not"),
        ({"tokens": ["a", "a"]}, "damaged list of tokens"),
    ],
)
def test_what_would_change_the_tokens_is_refused(changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        write_tokenizer(file(pieces() | changes), tmp_path)


def test_of_a_merge_that_is_there_twice_the_first_counts(tmp_path):
    """As llama.cpp has it: ' 1' before '12' makes ' 12' of ' 1' and '2'."""
    said = byte_vocabulary()
    said["merges"] = ["Ġ 1", *(merge for merge in said["merges"] if merge != "Ġ 1"), "Ġ 1"]
    tokenizer = converted(said, tmp_path)
    assert tokenizer.convert_ids_to_tokens(tokenizer("x 12")["input_ids"]) == ["x", "Ġ1", "2"]


def test_merges_of_what_is_no_token_are_refused(tmp_path):
    said = byte_vocabulary()
    with pytest.raises(UserError, match="merges"):
        write_tokenizer(file(said, merges=[*said["merges"], "zz yy"]), tmp_path)


def test_a_file_without_a_tokenizer_has_none(tmp_path):
    write_tokenizer(file({"model": "none"}), tmp_path)
    assert not list(tmp_path.iterdir())
