"""Tiny random models of every named family, made on the spot, and a store of the test's own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

_LLAMA_LIKE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 211,
    "max_position_embeddings": 64,
}
_GPT2_LIKE = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 211, "n_positions": 64}
_NEO = {
    "hidden_size": 32,
    "num_layers": 2,
    "num_heads": 4,
    "attention_types": [[["global", "local"], 1]],
    "vocab_size": 211,
    "max_position_embeddings": 64,
}
FAMILY_CONFIGS: dict[str, dict[str, Any]] = {
    "llama": _LLAMA_LIKE,
    "mistral": _LLAMA_LIKE,
    "qwen2": _LLAMA_LIKE,
    "qwen3": _LLAMA_LIKE,
    "gemma2": _LLAMA_LIKE,
    "gemma3_text": _LLAMA_LIKE,
    "gpt2": _GPT2_LIKE,
    "gpt_neo": _NEO,
    "gpt_neox": {
        k: v for k, v in _LLAMA_LIKE.items() if k not in ("num_key_value_heads", "head_dim")
    },
}


def make_model(family: str, **changes: Any) -> Any:
    """A random transformers model whose norm gains are random too."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(len(family))
    config = AutoConfig.for_model(family, **{**FAMILY_CONFIGS[family], **changes})
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "ln_" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`model_folder(family, **config changes)`: a saved tiny model, made once a session."""
    made: dict[str, Path] = {}

    def folder(family: str, save: dict[str, Any] | None = None, **changes: Any) -> Path:
        key = repr((family, save, sorted(changes.items())))
        if key not in made:
            path = tmp_path_factory.mktemp(family) / "model"
            model = make_model(family, **changes)
            if (save or {}).get("dtype"):
                model = model.to((save or {})["dtype"])
            shard = (save or {}).get("max_shard_size", "50GB")
            model.save_pretrained(path, max_shard_size=shard)
            made[key] = path
        return made[key]

    return folder


@pytest.fixture(scope="session")
def dog_model(model_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama whose neuron 1.down.17 writes the word 'dog' (token 123), with a word-level
    tokenizer of w0, w1, …"""
    from safetensors.torch import load_file, save_file
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("dog") / "model"
    shutil.copytree(model_folder("llama"), folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] *= 50  # so that the normalised stream can make up its mind
    target = tensors["lm_head.weight"][123]
    tensors["model.layers.1.mlp.down_proj.weight"][:, 17] = 10 * target / target.norm()
    save_file(tensors, folder / "model.safetensors")
    words = {("dog" if i == 123 else f"w{i}"): i for i in range(211)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0").save_pretrained(folder)
    return folder


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty $INTERP_HOME and store."""
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("INTERP_RUNS", str(tmp_path / "runs"))
    return tmp_path
