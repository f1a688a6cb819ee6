"""What the files say is what the model runs with, or the folder is refused."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp.errors import UserError
from interp.model.agreement import check_numbers
from interp.model.checkpoint import load_model
from interp.model.folder import check_folder
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


def test_a_tensor_under_two_names_is_refused(folder):
    """With the base model's prefix and without: transformers takes one of them."""
    tensors = load_file(folder / "model.safetensors")
    name = DOWN.removeprefix("model.")
    save_file(tensors | {name: tensors[DOWN].flip(0).contiguous()}, folder / "model.safetensors")
    assert f"holds '{name}' with 'model.' before it and without" in refusal(folder)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("lm_head.bias", 211),
        ("model.layers.0.mlp.up_proj.bias", 48),
        ("model.layers.1.mlp.down_proj.bias", 32),
        ("model.layers.1.self_attn.v_proj.bias", 16),
        ("model.layers.0.self_attn.o_proj.bias", 32),
        ("model.layers.0.input_layernorm.bias", 32),
        ("model.norm.bias", 32),
    ],
)
def test_a_bias_that_the_model_lacks_is_refused(name, size, folder):
    """transformers leaves it out without an error, and the files' views would count it."""
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {name: torch.full((size,), 5.0)}, folder / "model.safetensors")
    says = f"holds '{name}', which the model that its config.json describes has no place for"
    assert says in refusal(folder)
    with pytest.raises(UserError, match="has no place for: mend config.json or fetch it again"):
        load_model(folder)


def test_a_bias_of_queries_that_the_model_lacks_is_refused(folder):
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.bias"
    save_file(tensors | {name: torch.ones(32)}, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"holds 'model.layers.0.self_attn.q_proj.bias', which"):
        load_model(folder)


def test_a_bias_that_config_json_tells_of_is_read(model_folder, own_home):
    weights = Weights(model_folder("llama", attention_bias=True, mlp_bias=True))
    own = load_file(weights.folder / "model.safetensors")
    assert torch.equal(weights.bias("up", 1), own["model.layers.1.mlp.up_proj.bias"])
    assert torch.equal(weights.b_O(0), own["model.layers.0.self_attn.o_proj.bias"])


def test_what_else_is_left_out_is_said_in_a_line(folder, caplog):
    tensors = load_file(folder / "model.safetensors")
    more = {f"model.layers.{i}.self_attn.q_norm.weight": torch.ones(8) for i in range(2)}
    save_file(tensors | more, folder / "model.safetensors", metadata={"format": "pt"})
    load_model(folder)
    (record,) = caplog.records
    assert "2 of its tensors are no part of the model" in record.getMessage()


def test_missing_weights_are_one_line(folder, caplog):
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.0.self_attn.q_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 of the model's weights are not in its files"):
        load_model(folder)
    assert not caplog.records


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_the_files_are_held_against_the_model(dtype, folder):
    """Whatever transformers may do to them as it loads them."""
    spec, stored = Weights(folder).spec, check_folder(folder).tensors
    held = load_model(folder, dtype=dtype).state_dict()
    check_numbers(spec, stored, held)
    for name in (DOWN, "model.norm.weight", "lm_head.weight"):
        other = held | {name: held[name].flip(0)}
        with pytest.raises(UserError, match=f"'{name}' in .* is not what the model runs with"):
            check_numbers(spec, stored, other)
