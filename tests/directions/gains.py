"""Models that differ by the gain of a norm."""

import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file


def with_gain(model, folder, gain, layer=1) -> Path:
    """A copy of a llama in `folder`, or that folder itself changed, whose MLP's norm has this
    gain."""
    if folder != model:
        shutil.copytree(model, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors[f"model.layers.{layer}.post_attention_layernorm.weight"] = gain
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
