"""Tiny random models of every named family, made on the spot, and a store of the test's own."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from interp.model.families import FAMILIES

os.environ.setdefault("HF_HUB_OFFLINE", "1")

CLASSIC = (
    *("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"),
    *("gpt2", "gpt_neo", "gpt_neox"),
)
"""Families that analyses are tested on; `tests/model/test_families.py` runs over all there are."""
FAMILY_CONFIGS: dict[str, dict[str, Any]] = {name: dict(FAMILIES[name].tiny) for name in CLASSIC}


def make_model(family: str, **changes: Any) -> Any:
    """A random transformers model whose norm gains are random too."""
    import torch

    from interp.model.conformance import tiny_model

    torch.manual_seed(len(family))
    return tiny_model(family, **changes)


def look_through_packages_once() -> None:
    """Streamlit's test harness reads the metadata of every installed package for each page that is
    opened, a quarter of a second; what is installed stays the same."""
    from streamlit.components.v2 import manifest_scanner

    manifest_scanner.scan_component_manifests = cache(manifest_scanner.scan_component_manifests)


@pytest.fixture(scope="session", autouse=True)
def packages_are_looked_through_once() -> None:
    if "streamlit.testing.v1" in sys.modules:
        look_through_packages_once()


@pytest.fixture(scope="session")
def server() -> Iterator[Any]:
    """For all that is fuzzed, and killed."""
    from .fuzz.harness import Server

    made = Server()
    yield made
    made.close()


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
    """`make_dog_model`'s."""
    folder = tmp_path_factory.mktemp("dog") / "model"
    shutil.copytree(model_folder("llama"), folder)
    make_dog_model(folder)
    return folder


@pytest.fixture(scope="session")
def talking_model(dog_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dog model with a chat template: w8 before a message of the user's, w9 before a reply."""
    folder = tmp_path_factory.mktemp("talking") / "model"
    shutil.copytree(dog_model, folder)
    message = "{{ 'w8' if message.role == 'user' else 'w9' }} {{ message.content }} "
    template = f"{{% for message in messages %}}{message}{{% endfor %}}w9"
    (folder / "chat_template.jinja").write_text(template)
    return folder


def make_dog_model(folder: Path) -> None:
    """Of a saved llama make one whose neuron 1.down.17 writes the word 'dog' (token 123), with a
    word-level tokenizer of w0, w1, …"""
    from safetensors.torch import load_file, save_file
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

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


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Of torch, as in a worker of Ray and in a `forked` child: the last digits of forward passes
    depend on it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty $INTERP_HOME and store."""
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("INTERP_RUNS", str(tmp_path / "runs"))
    return tmp_path
