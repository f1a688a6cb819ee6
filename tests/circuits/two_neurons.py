"""A tiny model in which two known neurons, and nothing else, carry the target."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..conftest import make_dog_model

LAYER, FIRST, SECOND = 1, 5, 17
"""The neurons; the second carries half of what the first does."""
TASK = """
about: the last word decides
pairs:
  - ["w1 w2 w10", "w1 w2 w11", "w20", "w21"]
  - ["w3 w4 w11", "w3 w4 w10", "w21", "w20"]
  - ["w5 w6 w10", "w5 w6 w11", "w20", "w21"]
  - ["w5 w6 w7", "w5 w6 w8", "w20", "w21"]
  - ["w5 w6 w7", "w5 w8", "w20", "w21"]
"""


def plant(source: Path, folder: Path) -> Path:
    """A copy of a saved llama, changed. In the stream coordinate 0 is 1 for w10 and -1 for w11,
    coordinate 1 is 1 for both; the two neurons read their product and write coordinate 2, which
    alone tells w20 from w21. Attention and all other neurons write nothing."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, folder)
    make_dog_model(folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    for name, weight in tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weight.zero_()
    embedding, head = tensors["model.embed_tokens.weight"], tensors["lm_head.weight"]
    embedding[:, :3] = 0
    embedding[11] = embedding[10]
    embedding[10, :2] = 1
    embedding[11, 0], embedding[11, 1] = -1, 1
    head[20:22] = 0
    head[20, 2], head[21, 2] = 100, -100
    mlp = f"model.layers.{LAYER}.mlp."
    for neuron, size in ((FIRST, 2e-4), (SECOND, 1e-4)):
        for part, coordinate in (("up_proj", 0), ("gate_proj", 1)):
            tensors[f"{mlp}{part}.weight"][neuron] = 0
            tensors[f"{mlp}{part}.weight"][neuron, coordinate] = 1
        tensors[f"{mlp}down_proj.weight"][2, neuron] = size
    tensors["model.norm.weight"][2] = 1
    gain = tensors[f"model.layers.{LAYER}.post_attention_layernorm.weight"]
    gain[:2] = 1
    save_file(tensors, file)
    return folder
