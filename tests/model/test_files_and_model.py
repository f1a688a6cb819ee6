"""What the files say is what the model runs with, or the folder is refused."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from interp.errors import UserError
from interp.model.weights import Weights

DOWN = "model.layers.1.mlp.down_proj.weight"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(model_folder, own_home, tmp_path):
    return shutil.copytree(model_folder("llama"), tmp_path / "model")


def refusal(folder) -> str:
    with pytest.raises(UserError) as caught:
        Weights(folder)
    return str(caught.value)


def change_config(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def in_shards(folder, *shards):
    """Its tensors in one shard, which the index names; others beside them in more shards."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    norm = {"model.norm.weight": tensors.pop("model.norm.weight")}
    named = {"a.safetensors": tensors, "b.safetensors": norm}
    where = {name: file for file, held in named.items() for name in held}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    for file, held in named.items():
        beside = {new: tensors[old].flip(0).contiguous() for at, new, old in shards if at == file}
        save_file(held | beside, folder / file, metadata={"format": "pt"})


@pytest.mark.parametrize("name", [DOWN, "lm_head.weight", "model.layers.0.self_attn.q_proj.weight"])
def test_a_tensor_in_two_shards_is_refused(name, folder):
    in_shards(folder, ("b.safetensors", name, name))
    says = f"b.safetensors holds '{name}', which the index gives to a.safetensors: fetch it again"
    assert says in refusal(folder)


def test_a_tensor_that_the_index_does_not_name_is_refused(folder):
    name = "model.layers.0.mlp.up_proj.bias"
    in_shards(folder, ("a.safetensors", name, "model.layers.0.input_layernorm.weight"))
    assert f"a.safetensors holds '{name}', which the index does not name" in refusal(folder)


def test_shards_as_the_index_says_are_opened(folder):
    whole = Weights(folder).neurons("down", 1)
    in_shards(folder)
    shutil.copy(folder / "a.safetensors", folder / "c.safetensors")  # nobody reads it
    assert (Weights(folder).neurons("down", 1) == whole).all()


def test_weights_of_another_name_are_refused(folder):
    """transformers takes the file that the config names."""
    shutil.copy(folder / "model.safetensors", folder / "other.safetensors")
    change_config(folder, transformers_weights="other.safetensors")
    assert "('transformers_weights'), which is not followed" in refusal(folder)


def test_a_shard_of_a_distributed_checkpoint_is_refused(folder):
    """Where one is there, transformers reads every safetensors file of the folder."""
    shard = "shard-00001-model-00001-of-00001.safetensors"
    shutil.copy(folder / "model.safetensors", folder / shard)
    assert f"has {shard}, a shard of a distributed checkpoint" in refusal(folder)
