"""TARS: a planted concept falls, zero edits change nothing, the control does not do the same."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from interp.cli import main
from interp.errors import UserError
from interp.model.again import Again
from interp.model.neuron import NeuronName
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.model.weights import Weights
from interp.neurons import removal
from interp.neurons.concepts import read_concepts, word_tokens
from interp.neurons.removal import (
    activations,
    closest,
    equal_contributors,
    head_target,
    reversal,
    text_target,
)
from interp.neurons.tars import TarsConfig
from interp.neurons.weight_edits import WeightEdit
from interp.runs.study import run_or_load

DOG = 123


@pytest.fixture(scope="module")
def subject(dog_model):
    return open_subject(dog_model)


@pytest.fixture
def config(dog_model, tmp_path):
    entry = {"describe": "w1 w2 w3", "prompts": ["w4 w5", "w6"]}
    entry["neighbour"] = {"word": "w9", "prompts": ["w7 w8"]}
    other = {**entry, "neighbour": {"word": "dog", "prompts": ["w7"]}}
    (tmp_path / "concepts.yaml").write_text(yaml.safe_dump({"dog": entry, "w30": other}))
    (tmp_path / "text.txt").write_text(" ".join(f"w{i % 200 + 1}" for i in range(400)))
    return TarsConfig(
        model=str(dog_model), file=str(tmp_path / "concepts.yaml"), edits=(0, 1, 4), tokens=120,
        corpus=str(tmp_path / "text.txt"),
    )  # fmt: skip


def test_the_planted_neuron_is_closest(subject):
    target = head_target(subject.weights, "dog", [DOG])
    assert str(target.site) == "final_norm_in"
    torch.testing.assert_close(target.vectors[0], subject.weights.W_U()[DOG])
    (name, cosine), *_ = closest(subject.weights, target.vectors[0], 5)
    assert str(name) == "1.down.17"
    assert cosine == pytest.approx(1.0)


def test_reversal_keeps_lengths_and_turns_against_what_a_neuron_adds(subject):
    vector, text = subject.weights.W_U()[DOG], "w1 w2 w3"
    chosen = closest(subject.weights, vector, 12)
    edit = reversal(subject, [name for name, _ in chosen], vector, text)
    torch.testing.assert_close(edit.new.norm(dim=1), edit.old.norm(dim=1))
    cosine = torch.cosine_similarity(edit.new, vector[None])
    torch.testing.assert_close(cosine.abs(), torch.ones(12))
    posts = subject.capture(subject.tokens(text), ["*.mlp_post"])
    for (name, _), c in zip(chosen, cosine, strict=True):
        site = next(s for s in posts if s.layer == name.layer)
        assert float(posts[site][0, -1, name.neuron]) * float(c) <= 0


@pytest.fixture(scope="module", params=["gemma2", "olmo2", "granite"])
def scaled(request, dog_model, model_folder, tmp_path_factory):
    """A model of which a norm or a factor follows the MLP, and what one unit of each neuron's
    activation adds to the stream, by layer, of the stored tensors. Two of the gains are 0."""
    folder = tmp_path_factory.mktemp("scaled") / "model"
    shutil.copytree(model_folder(request.param), folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(dog_model / name, folder / name)
    tensors, rows = load_file(folder / "model.safetensors"), []
    for at in ("model.layers.0", "model.layers.1"):
        raw = tensors[f"{at}.mlp.down_proj.weight"].T.double()
        if request.param == "granite":
            rows.append(
                raw * json.loads((folder / "config.json").read_text())["residual_multiplier"]
            )
        else:
            offset = 1.0 if request.param == "gemma2" else 0.0
            gain = tensors[f"{at}.post_feedforward_layernorm.weight"]
            gain[[3, 8]] = -offset
            gain[[1, 2]] = 5.0  # so that the stored vectors are far from what is added
            rows.append(raw * (gain.double() + offset))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return open_subject(folder), torch.stack(rows)


def test_the_closest_are_so_by_what_they_add(scaled):
    subject, added = scaled
    vector = subject.weights.W_U()[DOG].double()
    want = torch.cosine_similarity(added, vector[None, None], dim=-1)
    best = want.abs().flatten().sort(descending=True).indices[:5]
    chosen = closest(subject.weights, vector, 5)
    assert [name.layer * want.shape[1] + name.neuron for name, _ in chosen] == best.tolist()
    torch.testing.assert_close(
        torch.tensor([c for _, c in chosen]).double(), want.flatten()[best], atol=1e-6, rtol=1e-5
    )


def test_what_a_turned_neuron_adds_is_against_the_vector_at_its_length(scaled):
    subject, added = scaled
    vector, text = subject.weights.W_U()[DOG], "w1 w2 w3"
    names = [name for name, _ in closest(subject.weights, vector, 6)]
    edit = reversal(subject, names, vector, text)
    own = torch.stack([added[name.layer, name.neuron] for name in names])
    with edit.applied(subject):
        weights = {n: subject.parameter(f"model.layers.{n}.mlp.down_proj.weight") for n in (0, 1)}
        turned = torch.stack([weights[name.layer][:, name.neuron].double() for name in names])
    passed = added.abs().sum((0, 1)) > 0
    gain = torch.where(passed, own / edit.old.double(), 0.0)
    after = turned * gain
    torch.testing.assert_close(after.norm(dim=1), own.norm(dim=1), rtol=1e-5, atol=0)
    cosine = torch.cosine_similarity(after, torch.where(passed, vector, 0.0)[None].double())
    want = torch.where(activations(subject, names, text) < 0, 1.0, -1.0).double()
    torch.testing.assert_close(cosine, want, rtol=1e-5, atol=0)
    assert (turned[:, ~passed] == 0).all()


def test_matched_neurons_add_as_much_to_the_stream(scaled):
    subject, added = scaled
    own = NeuronName(1, "down", 7)
    (found,) = equal_contributors(subject, [own], "w1 w2 w3")
    post = subject.capture(subject.tokens("w1 w2 w3"), ["1.mlp_post"])[Site("mlp_post", 1)]
    sizes = post[0, -1].abs().double() * added[1].norm(dim=1)
    gaps = (sizes - sizes[7]).abs()
    gaps[7] = torch.inf
    assert found.neuron == int(gaps.argmin())


def test_closeness_does_not_depend_on_length(subject):
    vector = subject.weights.W_U()[DOG]
    want = closest(subject.weights, vector, 5)
    for scale in (1e-25, 1e25):
        assert [name for name, _ in closest(subject.weights, vector * scale, 5)] == [
            name for name, _ in want
        ]


def test_removing_a_neuron_that_speaks_silences_the_word(subject):
    """Hold the planted neuron up, so that the model says 'dog'; the edit turns that round."""
    from interp.model import edits
    from interp.model.site import Site

    vector = subject.weights.W_U()[DOG]
    edit = reversal(subject, [closest(subject.weights, vector, 1)[0][0]], vector, "w1 w2 w3")
    batch = subject.tokens("w1 w2 w3")
    sign = -1.0 if torch.cosine_similarity(edit.new[0], vector, dim=0) > 0 else 1.0
    with subject.edited(edits.clamp(Site("mlp_post", 1), 17, 5.0 * sign)):
        before = subject.logits(batch)[0, -1, DOG]
        with edit.applied(subject):
            after = subject.logits(batch)[0, -1, DOG]
    assert (after < before) == (sign > 0)


def test_matched_neurons_add_as_much_and_are_others(subject):
    neurons = [name for name, _ in closest(subject.weights, subject.weights.W_U()[DOG], 9)]
    found = equal_contributors(subject, neurons, "w1 w2 w3")
    assert [n.layer for n in found] == [n.layer for n in neurons]
    assert not set(found) & set(neurons)
    assert len(set(found)) == 9

    def sizes(names):
        lengths = [subject.weights.neurons("down", n.layer)[n.neuron].norm() for n in names]
        return activations(subject, names, "w1 w2 w3").abs() * torch.stack(lengths)

    one = equal_contributors(subject, neurons[:1], "w1 w2 w3")
    others = [NeuronName(neurons[0].layer, "down", i) for i in range(48) if i != neurons[0].neuron]
    gaps = (sizes(others) - sizes(neurons[:1])).abs()
    assert others[int(gaps.argmin())] == one[0]


def test_chances_are_the_model_s_own_where_it_caps_its_logits(model_folder):
    subject = open_subject(model_folder("gemma2", final_logit_softcapping=0.5))
    batch, site, weights = subject.pad([[3, 1, 4]]), Site("final_norm_in"), subject.weights
    end = subject.capture(batch, [site])[site][0, -1:]
    want = subject.logits(batch)[0, -1].softmax(-1)[[7, 9]].sum()
    torch.testing.assert_close(removal._probabilities(end, [7, 9], weights, weights.W_U())[0], want)


def test_text_target_decodes_to_the_word(subject):
    target = text_target(subject, "w1 w2 w3", [DOG], seed=1)
    row = target.index.iloc[0]
    assert row["probability"] >= row["start"]
    read = subject.weights.before_unembedding(target.vectors).float() @ subject.weights.W_U().T
    assert float(read.softmax(-1)[0, DOG]) == pytest.approx(row["probability"], rel=1e-4)
    again = text_target(subject, "w1 w2 w3", [DOG], seed=1)
    assert torch.equal(target.vectors, again.vectors)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
def test_before_the_unembedding_is_the_models_own_norm(family, model_folder):
    folder = model_folder(family)
    subject, weights = open_subject(folder), Weights(folder)
    ids = torch.tensor([[3, 1, 4]])
    found = subject.capture(ids, ["final_norm_in", "logits"])
    stream, logits = found.values()
    read = weights.before_unembedding(stream).float() @ weights.W_U().T
    torch.testing.assert_close(read, logits, atol=2e-5, rtol=1e-4)


def test_the_study(config, own_home):
    run = run_or_load(config)
    effects = run.table("tars/effects")
    check_intervals(run, effects)
    none = effects[effects["edits"] == 0]
    assert len(none) == 6
    assert (none["kl_median"] == 0.0).all()
    assert (none["kl_mean"] == 0.0).all()
    assert none.groupby("concept")["logprob"].nunique().eq(1).all()
    assert (effects[effects["edits"] == 4]["kl_mean"] > 0).all()
    together = run.table("tars/cumulative")
    assert (together[together["edits"] == 0]["kl_median"] == 0.0).all()
    first = together[(together["concepts"] == 1) & (together["edits"] == 4)].iloc[0]
    alone = effects.query("concept == 'dog' and edits == 4 and neurons == 'closest'").iloc[0]
    assert first["kl_mean"] == pytest.approx(alone["kl_mean"])
    assert first["logprob"] == pytest.approx(alone["logprob"])
    listed = run.table("tars/edits")
    assert not listed["name"].duplicated().any(), "a neuron is turned once"
    prompts = run.table("tars/prompts")
    own = prompts.query(
        "concept == 'dog' and word == 'dog' and edits == 4 and neurons == 'closest'"
    )
    assert own["probability"].mean() == pytest.approx(alone["probability"])
    edit = WeightEdit.load(run.path / "edits" / "dog.safetensors")
    assert [str(n) for n in edit.neurons] == listed[listed["concept"] == "dog"]["name"].tolist()
    assert run.metrics["closest_kl_median_0"] == 0.0


def test_what_is_known_of_an_edit_is_not_measured_again(config, own_home, monkeypatch):
    """Of two concepts, three sets and 0, 1 or 4 edits: the model as it is once, and the first
    concept's removal with the closest neurons not again as the first of those together."""
    passes = []
    logits = Again.logits

    def counted(again, changed=None):
        passes.append((again, changed))
        return logits(again, changed)

    monkeypatch.setattr(Again, "logits", counted)
    run = run_or_load(config)
    texts = {again for again, changed in passes[:1]}
    of_text = [changed for again, changed in passes if again in texts]
    together = 2  # both concepts with 1 edit of each, and with 4
    assert len(of_text) == 1 + 1 + 2 * 3 * 2 + together
    assert of_text.count(None) == 2, "to compare with, and of no edit"
    effects, prompts = run.table("tars/effects"), run.table("tars/prompts")
    plain = effects[effects["edits"] == 0]
    assert plain["kl_mean"].to_list() == [0.0] * 6
    asked = prompts[prompts["edits"] == 0].groupby(["word", "prompt", "concept"])["logprob"]
    assert asked.count().eq(3).all()
    assert asked.nunique().eq(1).all()


def test_an_edit_is_measured_as_by_whole_passes(config, own_home, subject):
    """Of a table's last row, with the run's own edit."""
    run = run_or_load(config)
    edit = WeightEdit.load(run.path / "edits" / "w30.safetensors").first(4)
    rows = run.table("tars/prompts")
    rows = rows[(rows["concept"] == "w30") & (rows["neurons"] == "closest") & (rows["edits"] == 4)]
    with edit.applied(subject):
        for row in rows.to_dict("records"):
            prompts = rows[rows["word"] == row["word"]]["prompt"].to_list()
            logits = subject.logits(subject.tokens(prompts))[:, -1].double()
            ids = word_tokens(subject.weights, row["word"])
            found = logits.log_softmax(-1)[:, ids].logsumexp(-1)
            assert row["logprob"] == float(found[prompts.index(row["prompt"])])


def test_the_commands(config, own_home, capsys, tmp_path, dog_model):
    arguments = ["--model", config.model, "--file", config.file, "--corpus", config.corpus]
    arguments += ["--edits", "0", "2", "--tokens", "120", "--concepts", "dog"]
    assert main(["neurons", "tars", *arguments, "--json"]) == 0
    run = json.loads(capsys.readouterr().out.splitlines()[-1])["run"]
    edit, out, back = f"{run}/edits/dog.safetensors", tmp_path / "out", tmp_path / "back"
    assert main(["neurons", "apply", edit, "--model", config.model, "--out", str(out)]) == 0
    undo = ["neurons", "apply", edit, "--model", str(out), "--out", str(back), "--undo"]
    assert main(undo) == 0
    ids = torch.tensor([[1, 2, 3]])
    plain, edited, again = (open_subject(f).logits(ids) for f in (dog_model, out, back))
    assert torch.equal(plain, again)
    assert not torch.equal(plain, edited)
    assert main(["neurons", "apply", edit, "--model", str(out), "--out", str(tmp_path / "x")]) == 2
    assert "of another model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"concepts": ("cat",)}, "no concept 'cat': the file has dog, w30"),
        ({"edits": (0,)}, "at least one of them above 0"),
        ({"edits": (-1, 2)}, "from 0 up"),
        ({"tokens": 1}, "--tokens must be at least 2"),
        ({"edits": (30,)}, "--edits 30 are too many for 2 layers of 48"),
        ({"file": "/no/such/file"}, "no file of concepts at /no/such/file"),
    ],
)
def test_mistakes(config, own_home, change, says):
    from dataclasses import replace

    with pytest.raises(UserError, match=says):
        run_or_load(replace(config, **change))


def test_a_broken_concept_file(tmp_path):
    whole = {"describe": "x", "prompts": "not a list", "neighbour": {"word": "y", "prompts": ["z"]}}
    same = {**whole, "prompts": ["a"], "neighbour": {"word": "Dogs", "prompts": ["z"]}}
    texts = {
        "dog: 3": "'dog' of .*c.yaml is a text, not an object: data/concepts.yaml shows the form",
        "- a": "c.yaml is a list, not an object",
        "dog: {describe: x}": "'neighbour' of 'dog' of .*c.yaml is missing or null, not an object",
        "dog: {describe: [x], neighbour: {}}": "'describe' of 'dog' of .*c.yaml is a list, not a",
        "dog: {describe: x, prompts: [], neighbour: {word: y, prompts: [z]}}": "has no prompts",
        yaml.safe_dump({"dog": whole}): "'prompts' of 'dog' of .*c.yaml is a text, not a list",
        yaml.safe_dump({"dog": same}): "the neighbour of 'dog' of .*c.yaml is the same word",
        "{}": "holds no concept",
        "a: [": "cannot read",
        "dog: 1\ndog: 2": "has 'dog' twice",
    }
    for content, says in [*((t.encode(), s) for t, s in texts.items()), (b"\xff\xfe", "no UTF-8")]:
        (tmp_path / "c.yaml").write_bytes(content)
        with pytest.raises(UserError, match=says):
            read_concepts(tmp_path / "c.yaml")
    kept = {**whole, "prompts": ["a"]}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"no": kept}).replace("'no'", "no"))
    assert list(read_concepts(tmp_path / "c.yaml")) == ["no"], "to YAML itself, false"


def test_the_shipped_concepts_are_whole():
    from interp.data import FOLDER

    found = read_concepts(FOLDER / "concepts.yaml")
    assert list(found) == ["dog", "water", "Paris", "Python", "Monday"]
    assert all(c.prompts and c.neighbour_prompts for c in found.values())


def check_intervals(run, effects):
    """Means and their intervals are those of the units that the columns name."""
    prompts, means = run.table("tars/prompts"), run.table("tars/means")
    row = effects[effects["edits"] > 0].iloc[0]
    labels = ["concept", "neurons", "edits"]
    own = prompts[(prompts[labels] == row[labels].to_list()).all(axis=1)]
    asked = own[own["word"] == row["concept"]]["logprob"]
    assert (row["unit"], row["prompts"]) == ("prompt", len(asked))
    assert row["logprob"] == pytest.approx(asked.mean())
    assert asked.min() <= row["logprob_low"] <= row["logprob"] <= row["logprob_high"] <= asked.max()
    alone = row["neighbour_prompts"] == 1
    assert np.isnan(row["neighbour_logprob_low"]) == alone
    assert row["kl_unit"] == "document"
    assert (row["documents"] == 1) == np.isnan(row["kl_mean_low"])
    part = effects[(effects["neurons"] == row["neurons"]) & (effects["edits"] == row["edits"])]
    mean = means[(means["neurons"] == row["neurons"]) & (means["edits"] == row["edits"])].iloc[0]
    assert (mean["unit"], mean["concepts"]) == ("concept", len(part))
    assert mean["probability"] == pytest.approx(part["probability"].mean())
    assert mean["probability_low"] <= mean["probability"] <= mean["probability_high"]
