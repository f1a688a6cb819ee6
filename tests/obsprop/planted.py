"""A tiny model with a planted circuit: head 1.2 reads a word's class and writes the answer.

Words w100-w119 carry +u in their embedding, w120-w139 carry -u; head 1.2 reads u and writes the
difference of the unembeddings of w10 and w11. All else is small and random.
"""

from pathlib import Path

import pytest
import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from interp.obsprop.study import ObspropConfig
from interp.runs.store import Run, Store
from interp.runs.study import run_or_load

from ..conftest import make_model

POSITIVE = [f"w{i}" for i in range(100, 120)]
NEGATIVE = [f"w{i}" for i in range(120, 140)]
TASK = {
    "about": "planted",
    "observable": {"w10": 1, "w11": -1},
    "pair": ["w1 w100 w2 w3", "w1 w120 w2 w3"],
    "templates": ["w1 [WORD] w2 w3", "w4 w5 [WORD] w6 w7"],
    "words": [POSITIVE, NEGATIVE],
}


CHEAP = {"labelled": (2,), "draws": 1, "boots": 10, "paths": 1, "pairs": 0, "depth": 1}
"""Settings for tests that need a run and look at little of it."""


def write_task(folder: Path, **changes: object) -> Path:
    path = folder / "planted.yaml"
    path.write_text(yaml.safe_dump({**TASK, **changes}))
    return path


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_planted(tmp_path_factory.mktemp("planted") / "model")


def make_planted(folder: Path) -> Path:
    """The model, saved."""
    model = make_model("llama", tie_word_embeddings=False)
    generator = torch.Generator().manual_seed(5)
    u = torch.nn.functional.normalize(torch.randn(32, generator=generator), dim=0)
    with torch.no_grad():
        embed = model.get_input_embeddings().weight
        embed += 0.05 * torch.randn(embed.shape, generator=generator)
        embed[100:120] += 0.5 * u
        embed[120:140] -= 0.5 * u
        readout = model.lm_head.weight
        readout *= 5
        answer = torch.nn.functional.normalize(readout[10] - readout[11], dim=0)
        attention = model.model.layers[1].self_attn
        gain = model.model.layers[1].input_layernorm.weight
        attention.v_proj.weight[8:16] = 0  # kv head 1 serves heads 2 and 3
        attention.v_proj.weight[8] = u / gain
        attention.o_proj.weight[:, 16:24] = 0
        attention.o_proj.weight[:, 16] = 0.2 * answer
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(211)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def studied(
    planted: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ObspropConfig, Run, Path]:
    """The study of the planted circuit, made once: its config, its run and the store's folder."""
    folder = tmp_path_factory.mktemp("studied")
    small = {"labelled": (2, 8), "draws": 3, "boots": 50, "paths": 4, "pairs": 2}
    config = ObspropConfig(str(planted), str(write_task(folder)), texts=("w1 w100 w2",), **small)
    return config, run_or_load(config, Store(folder / "runs")), folder / "runs"
