"""Experts are neurons with an expert's name: atlas, search, directions, and what they refuse."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from interp.cli import main
from interp.directions.sources import open_directions
from interp.errors import UserError
from interp.model.neuron import NeuronName, clamp_site, parse_neuron
from interp.model.subject import open_subject
from interp.model.weights import Weights
from interp.neurons import search
from interp.neurons.agree import agreement, summary
from interp.neurons.atlas import AtlasConfig
from interp.neurons.clamp import ClampConfig
from interp.neurons.weight_edits import WeightEdit, apply_to_folder
from interp.runs.query import query
from interp.runs.study import run_or_load


def experts_of(folder):
    """The stacks of layer 1 as transformers holds them: gate and up [e, 2 w, d], down [e, d, w]."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    mlp = model.model.layers[1].mlp
    return mlp.experts.gate_up_proj, mlp.experts.down_proj, mlp, model.lm_head.weight


def test_an_atlas_of_experts_equals_dense_float64(model_folder, own_home):
    """A dense layer, then one of four experts and a shared one: every row against transformers'."""
    folder = model_folder("deepseek_v3")
    atlas = run_or_load(AtlasConfig(model=str(folder), k=5))
    fused, down, mlp, head = experts_of(folder)
    width = down.shape[-1]
    own = {
        **{("gate", f"e{i}"): fused[i, :width] for i in range(4)},
        **{("up", f"e{i}"): fused[i, width:] for i in range(4)},
        **{("down", f"e{i}"): down[i].T for i in range(4)},
        ("up", "shared"): mlp.shared_experts.up_proj.weight,
        ("gate", "shared"): mlp.shared_experts.gate_proj.weight,
        ("down", "shared"): mlp.shared_experts.down_proj.weight.T,
    }
    rows = query(f"SELECT * FROM {atlas.sql('neurons')} WHERE side = 'top'")
    assert len(rows) == atlas.manifest["metrics"]["vectors"] == 3 * 48 + 3 * (4 * 24 + 48)
    assert set(rows[rows["layer"] == 0]["expert"]) == {""}
    for (kind, expert), vectors in own.items():
        logits = vectors.double() @ head.double().T
        there = (rows["layer"] == 1) & (rows["kind"] == kind) & (rows["expert"] == expert)
        part = rows[there].sort_values("neuron")
        np.testing.assert_array_equal(part["ids"].str[0], logits.argmax(1))
        want = (logits.max(1).values - logits.mean(1)) / logits.std(1, correction=0)
        np.testing.assert_allclose(part["z"], want.detach(), rtol=1e-4)
    shown = search.show(atlas, "1.e2.gate.7")
    best = rows.query("layer == 1 and kind == 'gate' and expert == 'e2' and neuron == 7")
    assert list(shown["name"]) == ["1.e2.gate.7"] * 2
    assert list(shown["ids"].iloc[0]) == list(best["ids"].iloc[0])
    assert search.show(atlas, "1.shared.down.3")["expert"].iloc[0] == "shared"
    assert search.show(atlas, "0.up.3")["name"].iloc[0] == "0.up.3"
    with pytest.raises(UserError, match=r"no 1.e9.up.0 .* experts e0..e3 of neurons 0..23, shared"):
        search.show(atlas, "1.e9.up.0")


def test_names_print_as_they_are_read():
    for name in ("12.e5.gate.808", "12.shared.gate.808", "29.down.808"):
        assert str(parse_neuron(name)) == name
    assert parse_neuron("12.e5.gate.808") == NeuronName(12, "gate", 808, "e5")
    for wrong in ("12.5.gate.808", "12.e.gate.808", "12.e5.808", "e5.gate.808"):
        with pytest.raises(UserError, match=r"12\.e5\.gate\.808"):
            parse_neuron(wrong)


def test_a_neuron_of_an_expert_is_a_direction_that_steers(model_folder, own_home):
    folder = model_folder("mixtral")
    _, down, _, _ = experts_of(folder)
    found = open_directions("1.e2.down.7,1.e0.down.3", str(folder))
    assert torch.equal(found.vectors, torch.stack([down[2, :, 7], down[0, :, 3]]))
    subject = open_subject(folder)
    batch, before = subject.pad([[1, 2, 3]]), None
    before = subject.capture(batch, [found.site])[found.site]
    with subject.edited(found.steer(0, 2.0)):
        after = subject.capture(batch, [found.site])[found.site]
    torch.testing.assert_close(after - before, (2 * down[2, :, 7]).expand_as(after).detach())


def test_what_needs_a_site_of_one_neuron_is_refused_in_a_line(model_folder, own_home):
    weights = Weights(model_folder("mixtral"))
    with pytest.raises(
        UserError, match=r"layer 0 has the experts e0 to e3: name one, as in 0.e0.up.0"
    ):
        weights.neurons("up", 0)
    with pytest.raises(UserError, match="layer 0 has the experts e0 to e3: no 'e4'"):
        weights.neurons("up", 0, "e4")
    with pytest.raises(UserError, match="the activation of 0.e1.up.3 is no site"):
        clamp_site(parse_neuron("0.e1.up.3"))
    subject = open_subject(model_folder("mixtral"))
    with pytest.raises(UserError, match="does not offer '0.mlp_up': each token passes a few"):
        subject.capture(subject.pad([[1]]), ["0.mlp_up"])


def test_agreement_compares_expert_with_expert(model_folder, tmp_path, own_home):
    """A copy with the gates of experts e0 and e1 exchanged agrees in the other two."""
    folder, other = model_folder("qwen3_moe"), tmp_path / "other"
    shutil.copytree(folder, other)
    tensors = load_file(other / "model.safetensors")
    first, second = (f"model.layers.1.mlp.experts.{i}.gate_proj.weight" for i in (0, 1))
    tensors[first], tensors[second] = tensors[second], tensors[first]
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    a, b = (run_or_load(AtlasConfig(model=str(each), k=4)) for each in (folder, other))
    itself = summary(a, a).iloc[0]
    assert (itself["agreement"], itself["neurons"]) == (1, 2 * 4 * 24)
    table = agreement(a, b).set_index(["layer", "kind", "side"])
    assert set(table["neurons"]) == {4 * 24}
    assert 0.5 <= table.loc[(1, "gate", "top"), "agreement"] < 0.6
    same = table.drop([(1, "gate", "top"), (1, "gate", "bottom")])
    assert (same["agreement"] == 1).all()


@pytest.fixture(scope="module")
def speaking(model_folder, dog_model, tmp_path_factory):
    """A model with experts in layer 1 and a dense layer 0, and a tokenizer."""
    folder = tmp_path_factory.mktemp("speaking") / "model"
    shutil.copytree(model_folder("deepseek_v3"), folder)
    for file in dog_model.glob("tokenizer*"):
        shutil.copy(file, folder)
    return folder


def test_a_neuron_of_a_dense_layer_is_held_as_ever(speaking, own_home):
    config = ClampConfig(
        model=str(speaking), neuron="0.down.5", word="dog", prompt=("w1 w2",), chat=False,
        value=(0.0, 50.0), tokens=2,
    )  # fmt: skip
    values = run_or_load(config).table("curve/values")
    assert values["probability"].nunique() == 3


FEW = "each token passes a few of layer 1's 4 experts only"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["neurons", "clamp", "--neuron", "1.e2.down.5", "--no-chat"], "of 1.e2.down.5 is no site"),
        (
            ["neurons", "clamp", "--neuron", "1.down.5", "--no-chat"],
            "layer 1 has the experts e0 to e3 and shared: name one, as in 1.e0.down.0",
        ),
        (["neurons", "effects"], f"neurons effects cannot take this deepseek_v3 model: {FEW}"),
        (["neurons", "tars"], f"neurons tars cannot take this deepseek_v3 model: {FEW}"),
        (["obsprop", "run"], f"observable propagation cannot take this deepseek_v3 model: {FEW}"),
        (
            ["linearscope", "tokens", "--prompt", "w1 w2"],
            f"linearscope tokens cannot take this deepseek_v3 model: {FEW}",
        ),
        (["directions", "decode", "1.e4.up.0"], "layer 1 has the experts e0 to e3 and shared: no"),
        (["directions", "decode", "1.e3.up.24"], "no 1.e3.up.24 in this model: layers 0..1, neur"),
    ],
)
def test_a_command_that_cannot_take_experts_says_so(arguments, line, speaking, own_home, capsys):
    assert main([*arguments, "--model", str(speaking)]) == 2
    printed, complaint = capsys.readouterr()
    assert line in complaint
    assert complaint.strip().count("\n") == 0, complaint


def test_weights_of_an_expert_are_not_edited(speaking, tmp_path, own_home):
    name = parse_neuron("1.e2.down.5")
    edit = WeightEdit((name,), torch.ones(1, 32), torch.zeros(1, 32))
    with pytest.raises(UserError, match="1.e2.down.5 is of an expert"):
        apply_to_folder(edit, speaking, tmp_path / "edited")
