"""Quantised checkpoints whose numbers transformers gives exactly are opened dequantised."""

import json
import runpy
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from interp.errors import UserError
from interp.model import building, catalog
from interp.model.prepare import prepare
from interp.model.subject import open_subject
from interp.model.weights import Weights

from ..forked import ended

IDS = torch.arange(1, 17)[None]


def blocks(shape, size, scale):
    """[rows, columns] scales of blocks, spread over a matrix."""
    rows, columns = shape
    return scale.repeat_interleave(size, 0)[:rows].repeat_interleave(size, 1)[:, :columns]


def in_a_fork(module, **options):
    """For `run_helper`, without the seconds that a new process takes: tests/model/test_catalog.py
    has one."""
    return subprocess.CompletedProcess(module, ended(as_main, module), "", "")


def as_main(module):
    sys.argv = module
    runpy.run_module(module[0], run_name="__main__")


def test_an_fp8_checkpoint_is_dequantised(
    model_folder, own_home, tmp_path, monkeypatch, one_thread
):
    """In a process of its own, as it is done: stored value times the scale of its block."""
    monkeypatch.setattr(building, "run_helper", in_a_fork)
    folder = tmp_path / "fp8"
    shutil.copytree(model_folder("llama"), folder)
    stored = load_file(folder / "model.safetensors")
    wanted, random = dict(stored), torch.Generator().manual_seed(0)
    for name in [n for n in stored if "proj" in n]:
        rows, columns = stored[name].shape
        scale = torch.rand(-(-rows // 16), -(-columns // 16), generator=random) / 100
        stored[name] = (stored[name] * 1000).to(torch.float8_e4m3fn)
        stored[f"{name}_scale_inv"] = scale
        wanted[name] = stored[name].float() * blocks((rows, columns), 16, scale)
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    quantised = {"quant_method": "fp8", "weight_block_size": [16, 16], "fmt": "e4m3"}
    config["quantization_config"] = quantised | {"activation_scheme": "dynamic"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"is quantised \(fp8\): open it by its path"):
        Weights(folder)
    weights = Weights(catalog.resolve(str(folder)))
    assert torch.equal(weights.neurons("up", 1), wanted["model.layers.1.mlp.up_proj.weight"])
    assert torch.equal(weights.neurons("down", 0), wanted["model.layers.0.mlp.down_proj.weight"].T)
    plain = AutoModelForCausalLM.from_pretrained(model_folder("llama"))
    plain.load_state_dict(wanted)
    subject = open_subject(folder)
    torch.testing.assert_close(subject.logits(IDS), plain(input_ids=IDS).logits)
    assert torch.equal(
        subject.parameter("model.layers.1.mlp.up_proj.weight"),
        wanted["model.layers.1.mlp.up_proj.weight"],
    )


def test_fp8_blocks_that_are_cut_off_are_refused(model_folder, own_home, tmp_path):
    """transformers would scale 32 rows in blocks of 20 as if they were two of 16."""
    folder = tmp_path / "fp8"
    shutil.copytree(model_folder("llama"), folder)
    stored = load_file(folder / "model.safetensors")
    name = "model.layers.1.self_attn.o_proj.weight"
    stored[name] = stored[name].to(torch.float8_e4m3fn)
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [20, 20]}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"blocks of \[20, 20\] that '.*o_proj.weight' \[32, 32\]"):
        catalog.resolve(str(folder))


def test_an_mxfp4_checkpoint_is_dequantised(own_home, tmp_path):
    """Two 4-bit floats a byte, the lower first; a power of two for each 32."""
    from transformers import AutoConfig

    config = AutoConfig.for_model(
        "gpt_oss", hidden_size=64, intermediate_size=64, num_hidden_layers=1, head_dim=16,
        num_attention_heads=4, num_key_value_heads=2, vocab_size=50, num_local_experts=2,
        num_experts_per_tok=1, layer_types=["full_attention"],
    )  # fmt: skip
    folder, random = tmp_path / "mxfp4", torch.Generator().manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    stored = load_file(folder / "model.safetensors")
    positive = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    values = torch.tensor([*positive, *(-v for v in positive)])
    wanted = {}
    for name in [n for n in stored if n.endswith(("gate_up_proj", "experts.down_proj"))]:
        experts, width, height = stored.pop(name).shape
        packed = (experts, height, width // 32, 16)
        codes = torch.randint(256, packed, dtype=torch.uint8, generator=random)
        powers = torch.randint(118, 124, packed[:3], dtype=torch.uint8, generator=random)
        stored |= {f"{name}_blocks": codes, f"{name}_scales": powers}
        pairs = torch.stack([values[(codes & 15).long()], values[(codes >> 4).long()]], -1)
        exact = pairs.flatten(-2) * torch.exp2(powers.float() - 127)[..., None]
        wanted[name] = exact.flatten(-2).transpose(1, 2)
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    written = json.loads((folder / "config.json").read_text())
    skipped = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens"]
    quantised = {"quant_method": "mxfp4", "modules_to_not_convert": [*skipped, "lm_head"]}
    (folder / "config.json").write_text(json.dumps({**written, "quantization_config": quantised}))
    prepare(folder, None, tmp_path / "out")
    plain = load_file(tmp_path / "out" / "model.safetensors")
    assert len(wanted) == 2
    assert all(torch.equal(plain[name], exact) for name, exact in wanted.items())
    assert "quantization_config" not in (tmp_path / "out" / "config.json").read_text()
