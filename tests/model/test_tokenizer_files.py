"""Tokenizers without tokenizer.json: the same tokens in strings and in text, or one line."""

import io
import json
import shutil

import pytest
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

from interp.errors import UserError
from interp.model.tokenizer_files import load_tokenizer
from interp.model.vocabulary import token_strings, without_string

TEXTS = ["the dog and the cats, 2024", "a  cat\nsat \u00e9", "dogs"]


@pytest.fixture(scope="module")
def merges(tmp_path_factory):
    """GPT-2's two files, and the tokenizer that they hold."""
    folder = tmp_path_factory.mktemp("merges")
    built = Tokenizer(models.BPE())
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet, show_progress=False)
    built.train_from_iterator(TEXTS * 5, trainer)
    built.model.save(str(folder))
    return folder, built


@pytest.fixture(scope="module")
def pieces():
    """A sentencepiece model like Llama's, and one like Gemma's, which begins with no space."""

    def made(**options):
        out = io.BytesIO()
        SentencePieceTrainer.train(
            sentence_iterator=iter(TEXTS * 20), model_writer=out, vocab_size=300,
            model_type="bpe", byte_fallback=True, normalization_rule_name="identity",
            remove_extra_whitespaces=False, hard_vocab_limit=False, minloglevel=2, **options,
        )  # fmt: skip
        return out.getvalue()

    return {"llama": made(), "gemma2": made(add_dummy_prefix=False)}


def folder_of(path, model_type, tokenizer_config=None):
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({"model_type": model_type}))
    if tokenizer_config:
        (path / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    return path


@pytest.mark.parametrize(
    ("model_type", "config"),
    [("gpt2", None), ("llama", {"tokenizer_class": "GPT2Tokenizer"})],
)
def test_vocab_and_merges_are_a_tokenizer(merges, tmp_path, model_type, config):
    source, built = merges
    folder = folder_of(tmp_path / "model", model_type, config)
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(source / name, folder)
    tokenizer, strings = load_tokenizer(folder), token_strings(folder, 290)
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert ids == built.encode(text).ids
        if text.isascii():
            assert "".join(strings[i] for i in ids) == text
    assert without_string(folder, 290) == list(range(built.get_vocab_size(), 290))


@pytest.mark.parametrize("model_type", ["llama", "gemma2"])
def test_whose_split_is_not_known_is_refused(merges, tmp_path, model_type):
    """Gemma's class makes a vocabulary of five of these files, and says nothing."""
    folder = folder_of(tmp_path / "model", model_type)
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(merges[0] / name, folder)
    with pytest.raises(UserError, match=r"name their class .*GPT2Tokenizer") as caught:
        load_tokenizer(folder)
    assert "\n" not in str(caught.value)
    assert " dog" in token_strings(folder, 280)


@pytest.mark.parametrize("model_type", ["llama", "gemma2"])
def test_a_sentencepiece_model_is_a_tokenizer(pieces, tmp_path, model_type):
    folder = folder_of(tmp_path / "model", model_type)
    (folder / "tokenizer.model").write_bytes(pieces[model_type])
    own = SentencePieceProcessor(model_proto=pieces[model_type])
    size = own.get_piece_size()
    (folder / "added_tokens.json").write_text(json.dumps({"<turn>": size}))
    tokenizer = load_tokenizer(folder)
    for text in TEXTS:
        assert tokenizer.encode(text, add_special_tokens=False) == own.encode(text)
    strings = token_strings(folder, 303)
    for i in range(3, size):
        alone = own.decode([own.piece_to_id("a"), i])[1:]
        assert strings[i] == alone or "\ufffd" in alone
    assert strings[size] == "<turn>"
    assert tokenizer.convert_tokens_to_ids("<turn>") == size
    assert without_string(folder, 303) == list(range(size + 1, 303))


def test_a_piece_that_is_no_text_is_a_line(pieces, tmp_path):
    """Bytes that are no UTF-8: sentencepiece takes them, and fails as it gives them out."""
    folder = folder_of(tmp_path / "model", "llama")
    assert b"dog" in pieces["llama"]
    (folder / "tokenizer.model").write_bytes(pieces["llama"].replace(b"dog", b"d\xffg"))
    for reading in (lambda folder: token_strings(folder, 300), load_tokenizer):
        with pytest.raises(UserError, match=f"cannot read the sentencepiece model in {folder}"):
            reading(folder)


def test_a_class_that_splits_otherwise_is_refused(pieces, tmp_path):
    """GPT-2's class takes the pieces' vocabulary, drops the spaces, and says nothing."""
    folder = folder_of(tmp_path / "model", "gpt2")
    (folder / "tokenizer.model").write_bytes(pieces["llama"])
    with pytest.raises(UserError, match="another vocabulary|splits text otherwise"):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    ("model_type", "named"),
    [("gpt2", "Qwen2Tokenizer"), ("qwen2", None), ("qwen2", "GPT2Tokenizer")],
)
def test_a_class_that_overrules_tokenizer_json_is_refused(model_type, named, merges, tmp_path):
    """transformers' classes put rules of their own in its place; which of them it takes may follow
    from the model's type alone. As the refusal says, the plain class takes the file as it is."""
    folder = folder_of(tmp_path / "model", model_type, named and {"tokenizer_class": named})
    merges[1].save(str(folder / "tokenizer.json"))
    theirs = AutoTokenizer.from_pretrained(folder)
    assert theirs.encode(TEXTS[0]) != merges[1].encode(TEXTS[0]).ids
    with pytest.raises(UserError, match=r"Qwen2Tokenizer makes other ids of a text than .* says"):
        load_tokenizer(folder)
    folder_of(folder, model_type, {"tokenizer_class": "PreTrainedTokenizerFast"})
    for text in TEXTS:
        assert load_tokenizer(folder).encode(text) == merges[1].encode(text).ids


def test_a_class_of_other_families_on_whole_words_is_refused(dog_model, tmp_path):
    folder = shutil.copytree(dog_model, tmp_path / "model")
    folder_of(folder, "llama", {"tokenizer_class": "LlamaTokenizer"})
    assert AutoTokenizer.from_pretrained(folder).encode("dog") == []
    with pytest.raises(UserError, match="LlamaTokenizer makes other ids of a text than"):
        load_tokenizer(folder)


@pytest.mark.parametrize("complete", [True, False])
def test_code_that_comes_with_a_tokenizer_never_runs(merges, tmp_path, complete, monkeypatch):
    def ask(prompt=""):
        raise AssertionError("it asks on standard input")

    monkeypatch.setattr("builtins.input", ask)
    code = "raise SystemExit('it ran')"
    mapped = {"auto_map": {"AutoTokenizer": ["code.Own", None]}, "tokenizer_class": "Own"}
    folder = folder_of(tmp_path / "model", "gpt2", mapped)
    (folder / "code.py").write_text(code)
    if complete:
        merges[1].save(str(folder / "tokenizer.json"))
        assert load_tokenizer(folder).encode("dogs") == merges[1].encode("dogs").ids
    else:
        for name in ("vocab.json", "merges.txt"):
            shutil.copy(merges[0] / name, folder)
        with pytest.raises(UserError, match="is code of its own, which is never run"):
            load_tokenizer(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [("vocab.json", "[1]"), ("vocab.json", '{"a": "b"}'), ("added_tokens.json", '{"a": "b"}')],
)
def test_damaged_files_are_one_line(merges, tmp_path, name, content):
    for file in ("vocab.json", "merges.txt"):
        shutil.copy(merges[0] / file, tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match="damaged"):
        token_strings(tmp_path, 3)
