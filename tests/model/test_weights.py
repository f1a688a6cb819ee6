"""Canonical weights of every family against transformers' own modules."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from interp.errors import UserError
from interp.model.families import read_spec
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.model.weights import Weights

from ..conftest import FAMILY_CONFIGS, make_model
from ..obsprop.models import biased_model, exact


def parts_of(model, family):
    """(embedding, unembedding, MLP of layer 1, norm before it, final norm) of a model."""
    base = model.base_model
    layers = base.layers if hasattr(base, "layers") else base.h
    final = getattr(base, "norm", None) or getattr(base, "ln_f", None) or base.final_layer_norm
    layer = layers[1]
    names = ("pre_feedforward_layernorm", "ln_2", "post_attention_layernorm")
    norm = next(getattr(layer, n) for n in names if hasattr(layer, n))
    return model.get_input_embeddings(), model.get_output_embeddings(), layer.mlp, norm, final


@pytest.mark.parametrize("family", FAMILY_CONFIGS)
def test_views_are_what_the_model_computes_with(family, model_folder, own_home):
    folder = model_folder(family)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    weights, spec = Weights(folder), Weights(folder).spec
    embed, unembed, mlp, norm, final = parts_of(model, family)
    assert torch.equal(weights.W_E(), embed.weight)
    assert torch.equal(weights.W_U(), unembed.weight)
    x = torch.randn(5, spec.d_model)
    # the gain is what multiplies the normalised vector
    for module, gain in ((norm, weights.gain("mlp", 1)), (final, weights.gain("final"))):
        centred = x - x.mean(1, keepdim=True) if spec.norm == "layer" else x
        bias = getattr(module, "bias", None)
        unit = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
        want = module(x) - (0 if bias is None else bias)
        torch.testing.assert_close(unit * gain, want, atol=1e-4, rtol=1e-3)
    # the MLP without biases, from rows a neuron: down(act(gate x) * up x) or down(act(up x))
    for name, parameter in mlp.named_parameters():
        if name.endswith("bias"):
            parameter.data.zero_()
    act = mlp.act_fn if hasattr(mlp, "act_fn") else mlp.act
    hidden = x @ weights.neurons("up", 1).T
    hidden = act(x @ weights.neurons("gate", 1).T) * hidden if "gate" in spec.kinds else act(hidden)
    torch.testing.assert_close(hidden @ weights.neurons("down", 1), mlp(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILY_CONFIGS)
def test_heads_add_up_to_what_attention_adds(family, own_home, tmp_path):
    """Every bias random: attention's output is rebuilt from the patterns and the heads' weights."""
    model = biased_model(family)
    model.save_pretrained(tmp_path)
    subject = open_subject(exact(model), attention="eager", dtype=torch.float64)
    weights, spec = Weights(tmp_path), subject.spec
    sites = [Site(kind, 1) for kind in ("resid_pre", "head_v", "attn_pattern", "attn_out")]
    stream, values, pattern, added = subject.capture(subject.pad([range(3, 12)]), sites).values()
    gain, offset = weights.norm("attn", 1)
    centred = stream - stream.mean(-1, keepdim=True) if spec.norm == "layer" else stream
    read = centred / (centred.square().mean(-1, keepdim=True) + spec.eps).sqrt() * gain + offset
    own = torch.einsum("hkd,bpd->bphk", weights.W_V(1).double(), read) + weights.b_V(1)
    torch.testing.assert_close(own, values, atol=1e-10, rtol=1e-10)
    shared = own.repeat_interleave(spec.n_heads // spec.n_kv_heads, dim=2)
    z = torch.einsum("bhqp,bphk->bqhk", pattern, shared)
    out = torch.einsum("hdk,bqhk->bqd", weights.W_O(1).double(), z) + weights.b_O(1)
    if post := weights.norm("attn_post", 1):
        out = out / (out.square().mean(-1, keepdim=True) + spec.eps).sqrt() * post.gain
    torch.testing.assert_close(out, added, atol=1e-10, rtol=1e-10)


def test_absent_biases_and_norms_are_told_apart(model_folder, own_home):
    """An absent bias is zero; an absent norm is None, so that nobody multiplies by it."""
    weights = Weights(model_folder("llama"))
    assert weights.b_O(1).abs().sum() == weights.bias("down", 1).abs().sum() == 0
    assert weights.norm("attn_post", 1) is None
    assert Weights(model_folder("gemma2")).norm("attn_post", 1) is not None


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("tied", [True, False])
def test_tied_and_untied(family, tied, model_folder, own_home):
    folder = model_folder(family, tie_word_embeddings=tied)
    weights = Weights(folder)
    assert weights.spec.tied is tied
    assert torch.equal(weights.W_U(), weights.W_E()) is tied


def test_a_stored_head_counts_though_they_are_said_to_be_tied(model_folder, own_home, tmp_path):
    """As transformers takes it."""
    folder = tmp_path / "model"
    shutil.copytree(model_folder("llama", tie_word_embeddings=True), folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = torch.randn(211, 32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    own = AutoModelForCausalLM.from_pretrained(folder).lm_head.weight
    assert torch.equal(Weights(folder).W_U(), own)


def test_of_shards_and_a_single_file_the_file_counts(model_folder, own_home, tmp_path):
    """As transformers takes them."""
    folder = tmp_path / "model"
    shutil.copytree(model_folder("llama", save={"max_shard_size": "20KB"}), folder)
    tensors = load_file(model_folder("llama") / "model.safetensors")
    tensors["model.embed_tokens.weight"] = torch.randn(211, 32)
    before = Weights(folder).fingerprint()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    own = AutoModelForCausalLM.from_pretrained(folder).model.embed_tokens.weight
    assert torch.equal(Weights(folder).W_E(), own)
    assert Weights(folder).fingerprint() != before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_stored_dtypes_are_read_exactly(dtype, model_folder, own_home):
    folder = model_folder("qwen2", save={"dtype": dtype})
    stored = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    assert stored[name].dtype == dtype
    assert torch.equal(Weights(folder).neurons("up", 0), stored[name].float())


def test_indexed_shards(model_folder, own_home):
    whole, sharded = model_folder("llama"), model_folder("llama", save={"max_shard_size": "20KB"})
    assert (sharded / "model.safetensors.index.json").exists()
    assert torch.equal(Weights(whole).neurons("down", 1), Weights(sharded).neurons("down", 1))


def test_base_model_checkpoint_without_prefix(model_folder, own_home, tmp_path):
    """The hub's gpt2 stores `h.0.mlp…`, not `transformer.h.0.mlp…`."""
    folder = model_folder("gpt2")
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {n.removeprefix("transformer."): t for n, t in tensors.items()}, bare / "model.safetensors"
    )
    assert torch.equal(Weights(bare).neurons("up", 1), Weights(folder).neurons("up", 1))
    assert torch.equal(Weights(bare).W_U(), Weights(folder).W_U())


def test_multimodal_checkpoint_with_nested_language_model(model_folder, own_home, tmp_path):
    folder = model_folder("gemma3_text")
    nested = tmp_path / "nested"
    shutil.copytree(folder, nested)
    tensors = load_file(folder / "model.safetensors")
    renamed = {n.replace("model.", "language_model.model.", 1): t for n, t in tensors.items()}
    save_file(renamed, nested / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (nested / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": config}))
    assert torch.equal(Weights(nested).neurons("gate", 1), Weights(folder).neurons("gate", 1))
    assert torch.equal(Weights(nested).gain("final"), Weights(folder).gain("final"))


@pytest.mark.parametrize("family", FAMILY_CONFIGS)
def test_activation_without_one_in_the_config_is_transformers_own(family):
    config = make_model(family).config.to_dict()
    names = ("hidden_act", "hidden_activation", "activation_function")
    (own,) = {config.pop(name) for name in names if name in config}
    assert read_spec(config).activation == own


def test_gemma_s_legacy_gelu_is_the_approximation():
    config = {"model_type": "gemma", **FAMILY_CONFIGS["gemma2"], "hidden_act": "gelu"}
    assert read_spec(config).activation == "gelu_pytorch_tanh"
    ignored = {**config, "hidden_act": "relu", "hidden_activation": "gelu"}
    assert read_spec(ignored).activation == "relu", "transformers does not read the other"


class TestDamage:
    @pytest.fixture
    def broken(self, model_folder, own_home, tmp_path):
        folder = tmp_path / "broken"
        shutil.copytree(model_folder("llama"), folder)
        return folder

    def test_truncated(self, broken):
        path = broken / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(UserError, match="truncated or corrupt"):
            Weights(broken)

    def test_nan(self, broken):
        tensors = load_file(broken / "model.safetensors")
        tensors["model.layers.1.mlp.up_proj.weight"][7, 7] = float("nan")
        save_file(tensors, broken / "model.safetensors")
        Weights(broken).neurons("up", 0)
        with pytest.raises(UserError, match=r"layers.1.mlp.up_proj.weight' .* holds a NaN"):
            Weights(broken).neurons("up", 1)

    def test_missing_shard(self, model_folder, own_home, tmp_path):
        folder = tmp_path / "sharded"
        shutil.copytree(model_folder("llama", save={"max_shard_size": "20KB"}), folder)
        next(folder.glob("model-00002-*")).unlink()
        with pytest.raises(UserError, match="lacks model-00002"):
            Weights(folder)

    def test_missing_tensor_and_wrong_shape(self, broken):
        tensors = load_file(broken / "model.safetensors")
        del tensors["model.layers.0.mlp.gate_proj.weight"]
        tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(3, 3)
        save_file(tensors, broken / "model.safetensors")
        with pytest.raises(UserError, match=r"no tensor 'model.layers.0.mlp.gate_proj.weight'"):
            Weights(broken).neurons("gate", 0)
        with pytest.raises(UserError, match=r"is \[3, 3\] where config.json implies \[48, 32\]"):
            Weights(broken).neurons("up", 0)

    @pytest.mark.parametrize(
        ("model_type", "says"),
        [
            ("nonsense", r"'nonsense' is not known .* docs/extending.md says how to add it"),
            ("mamba", "mamba models cannot be taken: .* no neurons"),
        ],
    )
    def test_unknown_families(self, model_type, says, broken):
        (broken / "config.json").write_text(json.dumps({"model_type": model_type}))
        with pytest.raises(UserError, match=says):
            Weights(broken)

    def test_no_folder_no_config_no_weights(self, broken, tmp_path):
        with pytest.raises(UserError, match=r"it has no config.json"):
            Weights(tmp_path)
        (broken / "model.safetensors").unlink()
        with pytest.raises(UserError, match=r"has no model.safetensors"):
            Weights(broken)
        (broken / "config.json").write_text("{")
        with pytest.raises(UserError, match=r"config.json is broken JSON"):
            Weights(broken)

    def test_absent_kind_and_layer(self, model_folder, own_home):
        with pytest.raises(UserError, match="no 'gate' neurons, only up, down"):
            Weights(model_folder("gpt2")).neurons("gate", 0)
        with pytest.raises(UserError, match=r"no layer 2: this model has layers 0\.\.1"):
            Weights(model_folder("gpt2")).neurons("up", 2)

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"num_hidden_layers": -2}, "'num_hidden_layers' is -2"),
            ({"num_hidden_layers": 10**9}, "has 1000000000 as 'num_hidden_layers', and there are"),
            ({"hidden_size": "32"}, "'hidden_size' is '32'"),
            ({"num_attention_heads": 0}, "'num_attention_heads' is 0"),
            ({"tie_word_embeddings": "false"}, "'tie_word_embeddings' is 'false'"),
            ({"rms_norm_eps": "small"}, "'rms_norm_eps' is 'small'"),
            ({"model_type": ["llama"]}, "has no model_type"),
            ({"text_config": 3}, "is not a model's config"),
            ({"quantization_config": {"quant_method": "fp8"}}, "is quantised"),
        ],
    )
    def test_damaged_configs(self, change, says, broken):
        config = json.loads((broken / "config.json").read_text())
        (broken / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(UserError, match=says):
            Weights(broken)

    @pytest.mark.parametrize(
        "content", ["[]", "null", '{"weight_map": {}}', '{"weight_map": {"a": 3}}']
    )
    def test_damaged_index(self, content, broken):
        (broken / "model.safetensors.index.json").write_text(content)
        (broken / "model.safetensors").unlink()
        with pytest.raises(UserError, match="is damaged|not an object"):
            Weights(broken)

    def test_integer_weights_are_refused(self, broken):
        tensors = load_file(broken / "model.safetensors")
        name = "model.layers.0.mlp.up_proj.weight"
        tensors[name] = tensors[name].to(torch.int8)
        save_file(tensors, broken / "model.safetensors")
        with pytest.raises(
            UserError, match=r"up_proj.weight' is I8\): open the checkpoint it was made from"
        ):
            Weights(broken).neurons("up", 0)
