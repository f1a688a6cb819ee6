"""Layers of experts: what they add, token by token, from the weights in the files."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.activations import ACT2FN

from interp.directions import Directions
from interp.errors import UserError
from interp.model.backends.double import KeepingDouble
from interp.model.families import FAMILIES
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.model.weights import Weights

SPARSE = [name for name, family in FAMILIES.items() if family.experts]
STACKED = ("gpt_oss", "granitemoe", "llama4_text")
"""Families whose files hold all experts of a layer in one tensor."""
DENSE_FIRST = ("deepseek_v3", "glm4_moe", "ernie4_5_moe", "llama4_text")
"""Families whose tiny model has a dense layer 0."""


def pushed(model):
    """The model with large weights of experts and with biases, so that limits and biases act."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
            elif ".mlp." in name or "feed_forward" in name or "block_sparse" in name:
                parameter.mul_(40)
    return model


@pytest.fixture(scope="module")
def made(model_folder, tmp_path_factory):
    """`made(name)`: a folder, and its model in float64, made once."""
    done = {}

    def get(name):
        if name not in done:
            path = tmp_path_factory.mktemp(name)
            tiny = model_folder(name)
            model = pushed(AutoModelForCausalLM.from_pretrained(tiny))
            model.save_pretrained(path)
            done[name] = path, copy.deepcopy(model).double()
        return done[name]

    return get


def activation(name, gate, up):
    if name == "gpt_oss":
        gate, up = gate.clamp(max=7.0), up.clamp(-7.0, 7.0)
        return (up + 1) * gate * torch.sigmoid(1.702 * gate)
    return ACT2FN["silu"](gate) * up


def routing(block, x):
    """Each token's experts and how much each counts [n, chosen], from transformers' router."""
    router = block.router if hasattr(block, "router") else block.gate
    found = router(x)
    return found[-1], found[-2]


def one_expert(name, weights, layer, expert, x):
    """An expert's answer to one token [d]."""
    read = {
        kind: weights.neurons(kind, layer, expert).double() @ x
        + weights.bias(kind, layer, expert).double()
        for kind in ("up", "gate")
    }
    hidden = activation(name, read["gate"], read["up"])
    return hidden @ weights.neurons("down", layer, expert).double() + weights.bias(
        "down", layer, expert
    )


def added(name, weights, block, x):
    """What a layer of experts gives for tokens [n, d], in the plainest way."""
    rows = []
    for token in x:
        if name == "llama4_text":  # experts read what the router has scaled
            shares = block.router(token[None])[0][0]
            routed = [(i, 1.0, share * token) for i, share in enumerate(shares)]
        else:
            chosen, shares = routing(block, token[None])
            pairs = zip(chosen[0].tolist(), shares[0], strict=True)
            routed = [(i, share, token) for i, share in pairs]
        out = sum(share * one_expert(name, weights, 1, f"e{i}", read) for i, share, read in routed)
        if weights.spec.d_shared:
            shared = one_expert(name, weights, 1, "shared", token)
            own_gate = getattr(block, "shared_expert_gate", None)
            out = out + shared * (1 if own_gate is None else own_gate(token).sigmoid())
        rows.append(out)
    return torch.stack(rows)


@pytest.mark.parametrize("name", SPARSE)
def test_what_is_added_is_a_loop_over_the_experts_in_the_files(name, made, own_home):
    folder, model = made(name)
    weights, subject = Weights(folder), open_subject(model)
    assert weights.sparse[-1] == 1
    block = model.get_submodule(f"model.layers.1.{FAMILIES[name].mlp}")
    sites = [Site(kind, 1) for kind in ("mlp_in", "mlp_out", "resid_mid", "resid_post")]
    batch = subject.pad([[5, 6, 7, 8, 9], [1, 2]])
    found = subject.capture(batch, sites)
    read, out, before, after = (found[site][batch.mask] for site in sites)
    with KeepingDouble():  # transformers' routers compute their shares in float32
        ours = added(name, weights, block, read) * weights.spec.residual_scale
    torch.testing.assert_close(ours, out, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(before + out, after, rtol=1e-9, atol=1e-12)


def test_the_limits_of_gpt_oss_act_in_that_test(made, own_home):
    folder, model = made("gpt_oss")
    weights, subject = Weights(folder), open_subject(model)
    batch = subject.pad([[5, 6, 7, 8, 9]])
    x = subject.capture(batch, ["1.mlp_in"])[Site("mlp_in", 1)][0]
    gate = x @ weights.neurons("gate", 1, "e0").double().T + weights.bias("gate", 1, "e0")
    assert (gate > 7).any()
    assert weights.bias("down", 1, "e0").norm() > 1


@pytest.mark.parametrize("name", SPARSE)
def test_both_layouts_of_files_give_the_same_neurons(name, made, tmp_path, own_home):
    """One tensor an expert, as the hub's checkpoints have it, and one for all of a layer."""
    folder, model = made(name)
    copy.deepcopy(model).float().save_pretrained(tmp_path, save_original_format=False)
    alone, stacked = Weights(folder), Weights(tmp_path)
    for weights in (alone, stacked):
        one_for_all = weights.place("up", 1, "e3").entry is not None
        assert one_for_all == (weights is stacked or name in STACKED)
    assert alone.banks(1) == stacked.banks(1)
    assert len(alone.banks(1)) == 4 + bool(alone.spec.d_shared)
    for bank in alone.banks(1):
        for kind in ("up", "gate", "down"):
            ours = alone.neurons(kind, 1, bank.expert)
            assert ours.shape == (bank.size, 32)
            assert torch.equal(ours, stacked.neurons(kind, 1, bank.expert))
            bias = alone.bias(kind, 1, bank.expert)
            assert torch.equal(bias, stacked.bias(kind, 1, bank.expert))


def test_an_expert_is_read_without_the_rest_of_its_stack(made, tmp_path, own_home, monkeypatch):
    from interp.model import weights as module

    read, plain = [], module.read_tensor

    def noted(stored, shape, *part):
        found = plain(stored, shape, *part)
        read.append((stored.name.rpartition("experts.")[2], part[0], tuple(found.shape)))
        return found

    monkeypatch.setattr(module, "read_tensor", noted)
    weights = Weights(made("gpt_oss")[0])
    weights.neurons("gate", 1, "e2")
    weights.bias("gate", 1, "e2")
    assert read == [("gate_up_proj", 2, (48, 32)), ("gate_up_proj_bias", 2, (96,))]


def test_dense_layers_among_layers_of_experts(model_folder, own_home):
    """Of qwen3_moe by a list, of the others by a rule; dense layers are as in any model."""
    folders = {name: model_folder(name) for name in DENSE_FIRST}
    folders["qwen3_moe"] = model_folder("qwen3_moe", mlp_only_layers=[0])
    folders["qwen3_moe by step"] = model_folder("qwen3_moe", decoder_sparse_step=2)
    for name, folder in folders.items():
        subject = open_subject(folder)
        weights = subject.weights
        assert weights.sparse == (1,), name
        (dense,) = weights.banks(0)
        assert (dense.expert, dense.size) == ("", weights.spec.d_mlp)
        assert len(weights.neurons("up", 0)) == (40 if name == "llama4_text" else 48)
        here = {site.layer for site in subject.sites if site.kind == "mlp_post"}
        assert here == {0}, name
        assert subject.site_error < 2e-6, name
        batch = subject.pad([[1, 2, 3]])
        assert subject.capture(batch, ["*.mlp_up"]).keys() == {Site("mlp_up", 0)}
        with pytest.raises(UserError, match=r"'1.mlp_up': each token passes a few of layer 1's 4"):
            subject.capture(batch, ["1.mlp_up"])


def test_a_model_of_experts_alone_names_the_reason_for_a_glob_too(model_folder, own_home):
    subject = open_subject(model_folder("olmoe"))
    with pytest.raises(UserError, match="'0.mlp_post': each token passes a few"):
        subject.capture(subject.pad([[1]]), ["*.mlp_post"])


def test_a_missing_expert_is_named(model_folder, tmp_path, own_home):
    from safetensors.torch import load_file, save_file

    folder = model_folder("qwen3_moe")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.0.mlp.experts.3.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    weights = Weights(tmp_path)
    assert len(weights.neurons("up", 0, "e2")) == 24
    with pytest.raises(UserError, match=r"no tensor 'model.layers.0.mlp.experts.(3.up|gate_up)"):
        weights.neurons("up", 0, "e3")


def test_a_vector_cannot_be_brought_to_a_site_that_a_layer_of_experts_lacks(model_folder, own_home):
    folder = model_folder("deepseek_v3")
    brought = Directions.of(torch.ones(48), "0.mlp_post", str(folder), "ones")
    assert brought.vectors.shape == (1, 48)
    with pytest.raises(UserError, match=r"no 1.mlp_post: each token passes a few"):
        Directions.of(torch.ones(48), "1.mlp_post", str(folder), "ones")
