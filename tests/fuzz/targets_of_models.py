"""Files of a model: weights, configs, tokenizers, GGUF, adapters, SAEs, networks of ncnn's."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

from ..conftest import make_model
from .harness import Target

CALLS = "tests.fuzz.openers"
TEXTS = ["the dog and the cats, 2024", "a  cat\nsat \u00e9", "dogs"]
SIZE = 300
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<turn>{{ m['role'] }} {{ m['content'] }}{% endfor %}"
)


def _llama(folder: Path) -> None:
    make_model("llama", vocab_size=SIZE).save_pretrained(folder / "model")


def _shards(folder: Path) -> None:
    make_model("llama").save_pretrained(folder / "model", max_shard_size="40KB")


def _experts(folder: Path) -> None:
    make_model("mixtral").save_pretrained(folder / "model")


def _with_pictures(folder: Path) -> None:
    make_model("llava").save_pretrained(folder / "model")


def _config_alone(folder: Path, model_type: str) -> Path:
    model = folder / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"model_type": model_type, "vocab_size": SIZE}))
    return model


def _save_tokenizer(folder: Path) -> None:
    """A byte-level BPE with a BOS token and a template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    built = Tokenizer(models.BPE())
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "</s>", "<turn>"],
        show_progress=False,
    )
    built.train_from_iterator(TEXTS * 5, trainer)
    built.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=built, bos_token="<s>", eos_token="</s>", chat_template=TEMPLATE
    ).save_pretrained(folder)
    (folder / "special_tokens_map.json").write_text(
        json.dumps({"bos_token": "<s>", "eos_token": {"content": "</s>", "special": True}})
    )


def _talking(folder: Path) -> None:
    _llama(folder)
    _save_tokenizer(folder / "model")


def _tokenizer(folder: Path) -> None:
    _save_tokenizer(_config_alone(folder, "llama"))


def _merges(folder: Path) -> None:
    """GPT-2's two files, and what is written beside them."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    model = _config_alone(folder, "gpt2")
    built = Tokenizer(models.BPE())
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet, show_progress=False)
    built.train_from_iterator(TEXTS * 5, trainer)
    size = built.get_vocab_size()
    built.model.save(str(model))
    (model / "added_tokens.json").write_text(json.dumps({"<turn>": size}))
    config = {
        "tokenizer_class": "GPT2Tokenizer",
        "model_max_length": 64,
        "added_tokens_decoder": {str(size): {"content": "<turn>", "special": True}},
        "chat_template": TEMPLATE,
    }
    (model / "tokenizer_config.json").write_text(json.dumps(config))


def _pieces(folder: Path) -> None:
    """A sentencepiece model like Llama's."""
    from sentencepiece import SentencePieceTrainer

    out = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20), model_writer=out, vocab_size=SIZE, model_type="bpe",
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    (_config_alone(folder, "llama") / "tokenizer.model").write_bytes(out.getvalue())


def _gguf(folder: Path) -> None:
    """A llama's, with the tokenizer of a sentencepiece model."""
    from ..model.gguf_files import CASES, make_model, write_gguf

    write_gguf(folder / "m.gguf", "llama", make_model(CASES["llama"]))


def _adapter(folder: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = make_model("llama", num_hidden_layers=1)
    model.save_pretrained(folder / "model")
    config = LoraConfig(r=2, target_modules=["v_proj", "down_proj"], init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(folder / "adapter")


def _saes(folder: Path) -> None:
    """A standard, a TopK and a JumpReLU one."""
    from sae_lens import (
        JumpReLUSAE,
        JumpReLUSAEConfig,
        StandardSAE,
        StandardSAEConfig,
        TopKSAE,
        TopKSAEConfig,
    )
    from sae_lens.saes.sae import SAEMetadata

    kinds = {
        "standard": (StandardSAE, StandardSAEConfig, {}),
        "topk": (TopKSAE, TopKSAEConfig, {"k": 4}),
        "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig, {}),
    }
    for name, (made, config, more) in kinds.items():
        about = SAEMetadata(
            model_name="model", hook_name="blocks.0.hook_resid_post", prepend_bos=True,
            model_from_pretrained_kwargs={"n_ctx": 64}, seqpos_slice=[1, 8],
        )  # fmt: skip
        sizes = config(d_in=32, d_sae=16, metadata=about, **more)
        made(sizes).save_model(folder / "saes" / name)


def _latents(folder: Path) -> None:
    _llama(folder)
    _saes(folder)


def _ncnn(folder: Path) -> None:
    from ..linearscope.test_networks import ncnn_files

    ncnn_files(folder, half=True)


AUTO = tuple(f"transformers.models.auto.{name}" for name in ("modeling_auto", "tokenization_auto"))
NEEDS = (
    *("interp.model.convert", "transformers.models.llama.tokenization_llama"),
    *("interp.model.subject", *AUTO, "transformers.models.llama.modeling_llama"),
    *("transformers.generation.utils", "sentencepiece", "jinja2.sandbox"),
)
DECODE = ("directions", "decode", "0.down.17", "--model", "model")
BESIDE = ("model/tokenizer_config.json", "model/special_tokens_map.json", "model/*.jinja")


def _subject(name: str, make: Callable[[Path], None], *files: str, words: str = "") -> Target:
    """A model opened, and ids or words through it."""
    command = ("model", words) if words else ("model",)
    paths = tuple(f"model/{file}" for file in files)
    return Target(f"{name} of a subject", make, paths, command, f"{CALLS}:subject", needs=NEEDS)


def _text(name: str, make: Callable[[Path], None], *files: str) -> Target:
    """What a tokenizer makes of a text."""
    return Target(name, make, files, ("model", "the dog"), f"{CALLS}:text", needs=NEEDS)


def _info(name: str, make: Callable[[Path], None]) -> Target:
    return Target(name, make, ("model/config.json",), ("models", "info", "model"))


TARGETS = [
    _info("config", _llama),
    _info("config of experts", _experts),
    _info("config within", _with_pictures),
    Target("weights", _llama, ("model/model.safetensors",), DECODE),
    Target(
        "shards", _shards, ("model/*.safetensors", "model/model.safetensors.index.json"), DECODE
    ),
    Target("vocabulary", _talking, ("model/tokenizer.json",), DECODE),
    _subject("config", _llama, "config.json", "generation_config.json"),
    _subject("config of experts", _experts, "config.json"),
    _subject("config within", _with_pictures, "config.json"),
    _subject("weights", _llama, "model.safetensors"),
    _subject("tokenizer", _talking, "tokenizer*", "*.jinja", "gen*", words="the dog"),
    _text("tokenizer.json", _tokenizer, "model/tokenizer.json"),
    _text("beside tokenizer.json", _tokenizer, *BESIDE),
    _text("merges", _merges, "model/vocab.json", "model/merges.txt", "model/added*", BESIDE[0]),
    _text("sentencepiece", _pieces, "model/tokenizer.model"),
    Target("gguf", _gguf, ("m.gguf",), ("m.gguf",), f"{CALLS}:gguf", needs=NEEDS),
    Target(
        "adapter",
        _adapter,
        ("adapter/*",),
        ("model", "adapter"),
        f"{CALLS}:adapter",
        needs=("peft", *NEEDS),
    ),
    Target("saes", _saes, ("saes/*/*",), ("saes",), f"{CALLS}:saes", needs=("sae_lens",)),
    Target(
        "latents",
        _latents,
        ("saes/topk/*",),
        ("directions", "decode", "sae:saes/topk:0,3", "--model", "model"),
        needs=("sae_lens",),
    ),
    Target("ncnn", _ncnn, ("net.param", "net.bin"), ("net.param", "net.bin"), f"{CALLS}:ncnn"),
]
