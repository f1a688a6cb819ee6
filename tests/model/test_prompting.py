"""What stands before a text: always that of the tokenizer itself, in every way that text takes."""

import dataclasses
import json

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import DynamicCache, PreTrainedTokenizerFast

from interp.darkmatter.measure import DarkMatterConfig
from interp.errors import UserError
from interp.model import prompting as module
from interp.model.prompting import Prompting, one_token, start_of
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.model.tokenizer_files import load_tokenizer
from interp.model.vocabulary import token_strings
from interp.neurons.atlas import AtlasConfig
from interp.neurons.clamp import ClampConfig
from interp.obsprop.scoring import corpus_rows
from interp.runs.study import plan, run_or_load
from interp.text.contexts import ContextStream
from interp.text.corpus import token_rows
from interp.text.stream import passes, statistics

from ..conftest import make_model
from ..letters import letter_tokenizer

BOS, END = ord("^"), ord("$")
CHAT = "{% for m in messages %}<{{ m['content'] }}>{% endfor %}"


def both_ends():
    """A tokenizer that adds an end token too, as some do."""
    tokenizer = letter_tokenizer(BOS)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="^ $A ~", special_tokens=[("^", BOS), ("~", ord("~"))]
    )
    return tokenizer


@pytest.mark.parametrize(
    ("tokenizer", "bos", "start"),
    [
        (letter_tokenizer(), "auto", ()),
        (letter_tokenizer(BOS), "auto", (BOS,)),
        (letter_tokenizer(BOS), "never", ()),
        (letter_tokenizer(bos_token="^"), "auto", ()),
        (letter_tokenizer(bos_token="^"), "always", (BOS,)),
        (both_ends(), "auto", (BOS,)),
        (None, "auto", ()),
    ],
)
def test_the_tokenizer_decides_what_goes_before_a_text(tokenizer, bos, start):
    prompting = Prompting(tokenizer, bos)
    assert prompting.start == start
    if tokenizer is None:
        assert prompting.record() == {"bos": "auto", "before each text": None}
        return
    assert prompting.ids("ab") == [*start, ord("a"), ord("b")]
    assert prompting.ids("^ab") == [BOS, ord("a"), ord("b")], "one BOS, also where it is spelled"
    assert prompting.plain("ab") == [ord("a"), ord("b")]
    assert prompting.record() == {"bos": bos, "before each text": list(map(chr, start))}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (CHAT, "^<hi>"),
        ("^" + CHAT, "^<hi>"),
        ("{{ bos_token }}" + CHAT, "^<hi>"),
        ("!^" + CHAT, "!^<hi>"),
    ],
)
def test_a_chat_has_one_bos(template, text):
    tokenizer = letter_tokenizer(BOS, chat_template=template)
    messages = [{"role": "user", "content": "hi"}]
    assert "".join(map(chr, Prompting(tokenizer).chat(messages))) == text
    own = text if "^" in template or "bos" in template else text[1:]
    assert "".join(map(chr, Prompting(tokenizer, "never").chat(messages))) == own


def test_mistakes_are_one_line():
    with pytest.raises(UserError, match="has no BOS token: leave --bos at auto"):
        Prompting(letter_tokenizer(), "always")
    with pytest.raises(UserError, match="empty prompt"):
        Prompting(letter_tokenizer(BOS)).ids("")
    with pytest.raises(UserError, match="holds half a character"):
        Prompting(letter_tokenizer()).ids("a\ud83d")
    with pytest.raises(UserError, match="no chat template"):
        Prompting(letter_tokenizer()).chat([{"role": "user", "content": "hi"}])
    chat = Prompting(letter_tokenizer(chat_template=CHAT))
    with pytest.raises(UserError, match="needs a role and a content"):
        chat.chat([{"content": "hi"}])
    with pytest.raises(UserError, match="an empty conversation"):
        chat.chat([])
    with pytest.raises(UserError, match="list is no text"):
        chat.ids([5])
    strict = "{{ raise_exception('only two turns') }}"
    with pytest.raises(UserError, match="refuses the messages: only two turns"):
        Prompting(letter_tokenizer(chat_template=strict)).chat([{"role": "user", "content": "x"}])


def test_special_tokens_are_no_data_but_the_unknown_word_is():
    tokenizer = letter_tokenizer(BOS, eos_token="$", unk_token="?", pad_token="#")
    tokenizer.add_special_tokens({"additional_special_tokens": ["@"]})
    assert set(Prompting(tokenizer).special) == {BOS, END, ord("#"), ord("@")}
    padded = letter_tokenizer(BOS, unk_token="?", pad_token="?")  # as Llama 2 is used
    assert Prompting(padded).special == (BOS,)
    assert Prompting(letter_tokenizer(unk_token="$", eos_token="$")).special == (END,)
    subject = open_subject(make_model("llama"), tokenizer=tokenizer)
    rows = [[BOS, 97, 98, END, 99, ord("?")], [97, 98]]
    site = Site("resid_post", 1)
    [(source, x)] = passes(subject, rows, [site], 8)
    assert source.token.tolist() == [97, 98, 99, ord("?"), 97, 98]
    assert source.position.tolist() == [1, 2, 4, 5, 0, 1], "places in the row as it was fed"
    whole = subject.capture(subject.pad(rows), [site])[site]
    wanted = torch.cat([whole[0, [1, 2, 4, 5]], whole[1, -2:]])
    torch.testing.assert_close(x[site], wanted)
    torch.testing.assert_close(statistics(subject, rows, [site])[site].mean.float(), wanted.mean(0))
    [(every, _)] = passes(subject, rows, [site], 8, special=True)
    assert len(every.token) == 8


class TestPaths:
    """The same text through every path, against transformers fed by its own tokenizer."""

    @pytest.fixture(scope="class")
    def subject(self):
        return open_subject(make_model("llama"), tokenizer=letter_tokenizer(BOS, eos_token="$"))

    def test_prompts(self, subject):
        batch = subject.tokens(["a longer one", "short"])
        own = subject.tokenizer(["a longer one", "short"]).input_ids
        kept = [ids[mask].tolist() for ids, mask in zip(*batch, strict=True)]
        assert kept == own
        wanted = subject._backend.model(input_ids=torch.tensor(own[:1])).logits
        torch.testing.assert_close(subject.logits(batch)[:1], wanted)

    def test_rows(self, subject, tmp_path):
        text = "abcdefghij" * 8
        (tmp_path / "a.txt").write_text(text)
        rows = list(token_rows([text], subject.prompting, 9, 90))
        assert [chr(row[0]) for row in rows] == ["^"] * 10
        assert "".join(chr(i) for row in rows for i in row[1:]) == text
        again = ContextStream(subject, [Site("resid_post", 0)], str(tmp_path), 9).rows(10)
        assert [ids for _, ids in again] == rows
        assert corpus_rows(subject, str(tmp_path), 80)[0][:3] == [BOS, *map(ord, "ab")]

    def test_losses_are_those_of_transformers(self, subject):
        stream = ContextStream(subject, [Site("resid_post", 0)], "", 9, longest=0.0)
        rows = enumerate(token_rows(["the cat sat on the mat, and on"], subject.prompting, 9, 27))
        [part] = stream.contexts(rows, 3, 8)
        losses = part.losses(subject.logits(part.batch))[part.chosen.cpu()]
        ids = part.batch.ids
        logits = subject._backend.model(input_ids=ids).logits[:, 1:-1].log_softmax(-1)
        wanted = -logits.gather(2, ids[:, 2:, None]).flatten()
        torch.testing.assert_close(losses[~losses.isnan()], wanted)


@pytest.fixture
def gemma_like(model_folder, tmp_path):
    """A llama whose tokenizer adds a BOS."""
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(model_folder("llama"), folder)
    letter_tokenizer(BOS).save_pretrained(folder)
    return folder


def test_what_is_fed_is_in_the_key_and_the_manifest(gemma_like, own_home):
    auto = ClampConfig(str(gemma_like), neuron="1.gate.3", word="d", chat=False, value=(1.0,))
    keys = {bos: plan(dataclasses.replace(auto, bos=bos))["key"] for bos in ("auto", "always")}
    assert keys["auto"] == keys["always"], "what is fed is the same"
    never = dataclasses.replace(auto, bos="never")
    assert plan(never)["key"] != keys["auto"]
    run = run_or_load(auto)
    assert run.manifest["fingerprints"]["before each text"] == str(BOS)
    assert run.manifest["text"] == {"bos": "auto", "before each text": ["^"]}
    assert run.table("curve/activation")["token"][0] == "^"
    assert run_or_load(never).manifest["text"]["before each text"] == []
    assert "before each text" not in plan(AtlasConfig(str(gemma_like)))["fingerprints"]


def test_no_bos_leaves_the_key_as_it_was(dog_model):
    planned = plan(ClampConfig(str(dog_model), neuron="1.gate.3", word="dog"))
    assert set(planned["fingerprints"]) == {"model", "tokenizer"}


def test_the_start_is_remembered(gemma_like, own_home, monkeypatch):
    assert start_of(gemma_like, "sha", "auto") == (BOS,)
    monkeypatch.setattr(module, "load_tokenizer", None)
    assert start_of(gemma_like, "sha", "auto") == (BOS,)


@pytest.mark.parametrize(("said", "bos"), [(True, "always"), (False, "never"), (None, "auto")])
def test_saes_say_what_they_were_trained_behind(said, bos, tmp_path):
    config = {"metadata": {"prepend_bos": said, "sae_lens_version": "6.54.0"}}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cfg.json").write_text(json.dumps(config))
    assert DarkMatterConfig(saes=str(tmp_path)).feeding == bos
    assert DarkMatterConfig(saes=str(tmp_path), bos="never").feeding == "never"
    (tmp_path / "two" / "cfg.json").write_text('{"prepend_bos": true}')
    if bos != "always":
        with pytest.raises(UserError, match="with and without BOS: give --bos"):
            _ = DarkMatterConfig(saes=str(tmp_path)).feeding


class TestEnds:
    """Generation stops at every end token that the model has."""

    @pytest.fixture(scope="class")
    def model(self):
        model = make_model("llama")
        model.generation_config.eos_token_id = [7, 8]
        model.config.eos_token_id = 9
        return model

    def test_they_are_those_of_transformers_generate(self, model):
        tokenizer = letter_tokenizer(eos_token="$")
        assert open_subject(model, tokenizer=tokenizer).ends == (7, 8)
        model.generation_config.eos_token_id = None
        assert open_subject(model, tokenizer=tokenizer).ends == (9,)
        model.config.eos_token_id = None
        assert open_subject(model, tokenizer=tokenizer).ends == (END,)

    def test_each_of_them_ends_a_text(self, model):
        subject = open_subject(model)
        batch = subject.pad([[1, 2, 3]])
        subject.ends = ()
        free = subject.generate(batch, 8)[0].tolist()
        subject.ends = (210, free[2])
        assert subject.generate(batch, 8)[0].tolist() == free[: free.index(free[2]) + 1]


@pytest.mark.parametrize("backend", ["native", "bridge", "nnsight"])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gpt2"])
def test_generation_remembers_the_prompt(family, backend):
    """Unsteered, against a loop without a cache: a cache that stays empty forgets the prompt."""
    model = make_model(family)
    subject = open_subject(model, backend)
    subject.ends = ()
    prompts = [[5, 9, 17, 33, 60, 2, 8], [7, 11, 3]]
    cache = DynamicCache()
    new = subject.generate(subject.pad(prompts), 6, cache=cache)
    for prompt, made in zip(prompts, new.tolist(), strict=True):
        ids = list(prompt)
        for _ in range(6):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        assert made == ids[len(prompt) :]
    assert cache.get_seq_length() == 7 + 6 - 1


PIECES = {
    "as GPT-2 spells it": (["a", "b", "Ġ", "à", "½", "Ġà", "à½"], decoders.ByteLevel()),
    "a byte alone": (["a", "b", "<0xE0>", "à", "½"], decoders.ByteFallback()),
}


@pytest.mark.parametrize("kind", PIECES)
def test_every_token_that_is_shown_can_be_asked_for(tmp_path, kind):
    """No text is encoded as a token that is half a character, so its name is what is shown."""
    words, decoder = PIECES[kind]
    words = [*words, *"\\#xdef0123459"]
    built = Tokenizer(models.BPE({word: n for n, word in enumerate(words)}, []))
    built.decoder = decoder
    if kind == "as GPT-2 spells it":
        built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=built).save_pretrained(tmp_path)
    shown = token_strings(tmp_path, len(words))
    assert "\\xe0" in shown
    prompting = Prompting(load_tokenizer(tmp_path))
    assert [one_token(prompting, word, len(words)) for word in shown] == list(range(len(words)))
    assert one_token(prompting, "#3", len(words)) == 3
    for wrong in ("#99", "\\xff", "\\xe0\\xe0"):
        with pytest.raises(UserError, match="tokens"):
            one_token(prompting, wrong, len(words))
