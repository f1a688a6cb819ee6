"""Token strings and word families."""

import json

import pytest
from tokenizers import Tokenizer, decoders, models

from interp.errors import UserError
from interp.model.vocabulary import (
    as_text,
    has_chat_template,
    token_strings,
    without_string,
    word_family,
)


@pytest.mark.parametrize(
    ("forms", "word"),
    [
        ([" dog", "dog", "Dogs", " DOGS", "dog's", "dogs'"], "dog"),
        (["city", " Cities"], "city"),
        (["box", "boxes"], "box"),
        (["house", "Houses"], "house"),
        (["glass"], "glass"),
        (["bus"], "bus"),
        (["its"], "its"),
        (["Monday", " Mondays"], "monday"),
        (["C++"], "c++"),
        ([" "], " "),
        (["\n"], "\n"),
        (["'s", "'S"], "'s"),
        (["'"], "'"),
        (["über", " Über"], "über"),
        ([" Übers"], "übers"),  # no plural, and no form of 'über'
        (["größes"], "grösses"),
        (["İstanbul", " istanbul", "ISTANBUL", "I\u0307stanbul"], "istanbul"),
        (["kız", "KIZ", "KİZ"], "kiz"),
        (["caf\u00e9", " CAFE\u0301"], "caf\u00e9"),
        (["CAT’S", "cat's"], "cat"),
    ],
)
def test_word_families(forms, word):
    assert {word_family(form) for form in forms} == {word}


def test_family_of_a_family_is_itself():
    for word in ("dog", "city", "texa", "paris", "glass", "united state", "'s", " ", "übers"):
        assert word_family(word_family(word)) == word_family(word)


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("▁dog", " dog"),
        ("Ġdog", " dog"),
        ("ĠÃ©tÃ©", " été"),
        ("␣dog⏎", " dog\n"),
        ("dog", "dog"),
        ("naïve", "naïve"),
    ],
)
def test_a_token_as_it_is_spelled_elsewhere(typed, text):
    assert as_text(typed) == text


def tokenizer(vocabulary, decoder):
    built = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(vocabulary)}, merges=[]))
    built.decoder = decoder
    return built


def test_byte_level_keeps_spaces_and_marks_partial_utf8(tmp_path):
    tokenizer(["Ġdog", "Ċ", "Ã©", "Ã"], decoders.ByteLevel()).save(str(tmp_path / "tokenizer.json"))
    assert token_strings(tmp_path, 6) == [" dog", "\n", "é", "\\xc3", "#4", "#5"]


def test_metaspace_keeps_the_leading_space(tmp_path):
    tokenizer(["▁dog", "s"], decoders.Metaspace()).save(str(tmp_path / "tokenizer.json"))
    assert token_strings(tmp_path, 2) == [" dog", "s"]


def test_byte_fallback_tokens_read_as_their_bytes(tmp_path):
    """As the tokenizer itself decodes them, where they are text by themselves."""
    words = ["<0x0A>", "<0x41>", "<0xE2>", "▁<0x0A>", "<0xZZ>"]
    fallback = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback()])
    built = tokenizer(words, fallback)
    built.save(str(tmp_path / "tokenizer.json"))
    assert token_strings(tmp_path, 5) == ["\n", "A", "\\xe2", " <0x0A>", "<0xZZ>"]
    assert [built.decode([0]), built.decode([1])] == ["\n", "A"]


def test_what_only_looks_like_a_byte_stays(tmp_path):
    tokenizer(["<0x0A>"], decoders.Fuse()).save(str(tmp_path / "tokenizer.json"))
    assert token_strings(tmp_path, 1) == ["<0x0A>"]


def test_ids_that_are_no_token(tmp_path):
    assert without_string(tmp_path, 3) == []  # without a tokenizer nothing is known of any
    words = Tokenizer(models.WordLevel({"a": 0, "b": 2, "#4": 4}, unk_token="a"))
    words.add_special_tokens(["<end>"])
    words.save(str(tmp_path / "tokenizer.json"))
    assert token_strings(tmp_path, 7)[:5] == ["a", "#1", "b", "<end>", "#4"]
    assert without_string(tmp_path, 7) == [1, 5, 6]


def test_special_tokens_are_literal(tmp_path):
    built = tokenizer(["Ġdog"], decoders.ByteLevel())
    built.add_special_tokens(["<|end of text|>"])
    built.save(str(tmp_path / "tokenizer.json"))
    assert token_strings(tmp_path, 2) == [" dog", "<|end of text|>"]


def test_no_tokenizer_shows_ids_but_a_foreign_one_is_refused(tmp_path):
    assert token_strings(tmp_path, 2) == ["#0", "#1"]
    (tmp_path / "tekken.json").write_text("{}")
    with pytest.raises(UserError, match="has tekken.json but no tokenizer.json"):
        token_strings(tmp_path, 2)
    (tmp_path / "tokenizer.model").write_bytes(b"x")
    with pytest.raises(UserError, match="tokenizer.model: it is no sentencepiece model"):
        token_strings(tmp_path, 2)
    (tmp_path / "tokenizer.json").write_text("{broken")
    with pytest.raises(UserError, match=r"cannot read .*tokenizer.json"):
        token_strings(tmp_path, 2)


def test_a_tokenizer_that_changed_is_read_again(tmp_path):
    for words in (["a", "b"], ["a", "c"]):
        tokenizer(words, decoders.Fuse()).save(str(tmp_path / "tokenizer.json"))
        assert token_strings(tmp_path, 2) == words


JINJA = "{% for m in messages %}<{{ m['content'] }}>{% endfor %}"
SEVERAL = [{"name": "tool_use", "template": "x"}]


@pytest.mark.parametrize(
    ("files", "has"),
    [
        ({}, False),
        ({"tokenizer_config.json": {}}, False),
        ({"tokenizer_config.json": {"chat_template": JINJA}}, True),
        ({"tokenizer_config.json": {"chat_template": None}}, False),
        ({"tokenizer_config.json": {"chat_template": SEVERAL}}, False),
        (
            {"tokenizer_config.json": {
                "chat_template": [*SEVERAL, {"name": "default", "template": JINJA}]}},
            True,
        ),
        ({"chat_template.jinja": JINJA}, True),
        ({"chat_template.jinja": ""}, False),
        ({"chat_template.json": {"chat_template": JINJA}}, False),
        ({"additional_chat_templates/tool_use.jinja": JINJA}, False),
        ({"additional_chat_templates/default.jinja": JINJA}, True),
        (
            {"tokenizer_config.json": {"chat_template": JINJA},
             "additional_chat_templates/tool_use.jinja": JINJA},
            False,
        ),
    ],
)  # fmt: skip
def test_a_chat_template_is_one_that_transformers_applies(files, has, tmp_path):
    from transformers import AutoTokenizer

    built = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    built.save(str(tmp_path / "tokenizer.json"))
    for name, content in ({"tokenizer_config.json": {}} | files).items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        if name.endswith("tokenizer_config.json"):
            content = {"tokenizer_class": "PreTrainedTokenizerFast"} | content
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    try:
        applied = tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    except ValueError:
        applied = ""
    assert has_chat_template(tmp_path) is bool(applied) is has


def test_a_broken_tokenizer_config_is_one_line(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text("{broken")
    with pytest.raises(UserError, match=r"tokenizer_config.json is broken JSON"):
        has_chat_template(tmp_path)
