"""An atlas's memory: within what is stated, and no more for a wider layer."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from interp.kernels.integers import INT16
from interp.neurons import atlas
from interp.neurons.atlas import AtlasConfig
from interp.neurons.memory import CONSTANT, COPIES, shared_bytes

from .wide import COMMON

ROOT = Path(__file__).parents[2]
WIDTH, TOKENS = 512, 300
PEAK = """
import resource, sys
from interp.neurons import atlas
from interp.neurons.making import Slices
from interp.runs.workers import map_parts
atlas.NUMBERS = int(sys.argv[2])
config = atlas.AtlasConfig(model=sys.argv[1], k=2)
task = Slices.of(config)
parts = [atlas.Part(0, n) for n in range(len(config.slices(0)))]
some = parts[:: max(len(parts) // 3, 1)]  # one of each kind
assert all(len(files[1]) > 0 for _, files in map_parts(task, some))
print(len(parts), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.fixture
def of_width(tmp_path, own_home):
    """A model of one layer with so many neurons."""

    def made(neurons):
        folder = tmp_path / str(neurons)
        folder.mkdir()
        sizes = {"hidden_size": WIDTH, "intermediate_size": neurons, "num_hidden_layers": 1}
        config = {**COMMON, **sizes, "num_attention_heads": 8, "vocab_size": TOKENS}
        (folder / "config.json").write_text(json.dumps(config))
        mlp, attn = "model.layers.0.mlp", "model.layers.0.self_attn"
        shapes = {
            **{f"{mlp}.{part}_proj.weight": (neurons, WIDTH) for part in ("up", "gate")},
            **{f"{attn}.{part}_proj.weight": (WIDTH, WIDTH) for part in "qkvo"},
            f"{mlp}.down_proj.weight": (WIDTH, neurons),
            **dict.fromkeys(("model.embed_tokens.weight", "lm_head.weight"), (TOKENS, WIDTH)),
        }
        norms = ("input_layernorm", "post_attention_layernorm")
        gains = [f"model.layers.0.{norm}.weight" for norm in norms] + ["model.norm.weight"]
        tensors = {name: torch.randn(shape).bfloat16() for name, shape in shapes.items()}
        save_file(
            tensors | {name: torch.ones(WIDTH) for name in gains}, folder / "model.safetensors"
        )
        return folder

    return made


def peak(folder, numbers):
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(folder), str(numbers)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return map(int, done.stdout.split())


def test_a_wide_layer_takes_no_more_than_a_narrow_one(of_width):
    slices, narrow = peak(of_width(1024), 2**19)
    assert slices == 3
    slices, wide = peak(of_width(16384), 2**19)
    assert slices == 3 * 16
    # in float32 the wide layer is 96 MiB, and three copies of it are made
    assert wide - narrow < 100 * 2**20


def test_the_statement_is_the_arithmetic(of_width, monkeypatch):
    from interp.neurons import memory

    monkeypatch.setattr(memory, "best_format", lambda: None)
    config = AtlasConfig(model=str(of_width(2048)), random=512)
    assert shared_bytes(config.stored_weights.spec) == 6 * TOKENS * WIDTH
    assert config.worker_bytes == 4 * COPIES * 3 * (2048 + 512) * WIDTH + CONSTANT
    many = replace(config, random=30_000)
    assert many.worker_bytes - config.worker_bytes == 4 * COPIES * 3 * (30_000 - 512) * WIDTH
    config = replace(config, random=1)
    monkeypatch.setattr(atlas, "NUMBERS", 2**20)
    assert config.worker_bytes == 4 * COPIES * (2**20 + WIDTH) + CONSTANT
    monkeypatch.setattr(memory, "best_format", lambda: INT16)
    assert config.worker_bytes == 4 * COPIES * (2**20 + WIDTH) + CONSTANT + 2 * TOKENS * WIDTH


COHERENCE = """
import resource, numpy, torch
from interp.neurons.coherence import coherence
units, words = torch.randn(2000, 256).half(), numpy.arange(2000)
rows = torch.randint(2000, (43000, 16))
coherence(rows[:256], units, words)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
coherence(rows, units, words)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_the_coherence_of_many_lists_takes_no_more_than_that_of_a_few():
    """Small results that are kept between large blocks broke up the heap: 218 MB here."""
    done = subprocess.run(
        [sys.executable, "-c", COHERENCE], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert int(done.stdout) < 40 * 2**20
