"""Directions: decoded, compared, scored, steered with, saved; atlas neurons among them."""

import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from interp.directions import Directions
from interp.directions.compare import why_not
from interp.directions.provenance import Provenance
from interp.directions.sources import neuron_directions
from interp.errors import UserError
from interp.model import edits
from interp.model.neuron import NeuronName, clamp_site, parse_neuron
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.model.weights import Weights, open_weights


def directions(n=3, d=32, seed=0):
    vectors = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    index = pd.DataFrame({"name": [f"direction {i}" for i in range(n)]})
    return Directions(Site("resid_post", 0), vectors, index, Provenance("test", notes={"x": 1}))


def test_decode_is_the_product_with_the_unembedding(model_folder, own_home):
    weights = Weights(model_folder("gemma2"))
    found = directions()
    for norm, gain in (("raw", 1.0), ("final", weights.gain("final"))):
        logits = (found.vectors * gain).double() @ weights.W_U().double().T
        table = found.decode(weights, k=4, lens=norm)
        assert list(table["name"]) == found.names
        for row, values in zip(table.to_dict("records"), logits, strict=True):
            assert row["top"] == [f"#{i}" for i in values.topk(4).indices.tolist()]
            assert row["bottom"] == [f"#{i}" for i in (-values).topk(4).indices.tolist()]
            z = (values.max() - values.mean()) / values.std(correction=0)
            assert row["top_z"] == pytest.approx(float(z), rel=1e-4)


@pytest.mark.parametrize("scale", [1e-35, 1e-20, 1e12, 1e30])
def test_a_direction_spells_the_same_at_any_length(scale, model_folder, own_home):
    weights, found = Weights(model_folder("gemma2")), directions()
    long = Directions(found.site, (found.vectors.double() * scale).float(), found.index)
    want, got = found.decode(weights, k=4), long.decode(weights, k=4)
    for side in ("top", "bottom"):
        assert got[side].tolist() == want[side].tolist()
        assert got[f"{side}_z"].tolist() == pytest.approx(want[f"{side}_z"].tolist(), rel=1e-5)
    logits = long.vectors.double() @ weights.W_U().double().T
    assert got["top_logits"].str[0].tolist() == pytest.approx(logits.max(1).values.tolist())


def test_a_vector_of_zeros_spells_nothing(model_folder, own_home):
    zero = Directions(Site("resid_post", 0), torch.zeros(1, 32), pd.DataFrame({"name": ["zero"]}))
    table = zero.decode(Weights(model_folder("gemma2")), k=4)
    assert table[["top_z", "bottom_z"]].isna().all(axis=None)


def test_cosine_and_coupling_identities():
    a, b = directions(4, seed=1), directions(3, seed=2)
    assert torch.allclose(a.cosine(a).diagonal(), torch.ones(4, dtype=torch.float64))
    assert torch.allclose(a.coupling(b) * b.coupling(a).T, a.cosine(b) ** 2)  # C12 C21 = cos^2
    zero = Directions(a.site, torch.zeros(1, 32), pd.DataFrame({"name": ["zero"]}))
    assert a.cosine(zero).abs().max() == 0


def test_scores_and_steering_move_together(model_folder, own_home):
    subject = open_subject(model_folder("llama"))
    found, batch = directions(), subject.pad([[1, 2, 3]])
    before = found.scores(subject.capture(batch, [found.site])[found.site])
    with subject.edited(found.steer(1, 2.0)):
        after = found.scores(subject.capture(batch, [found.site])[found.site])
    moved = (2.0 * found.vectors[1] @ found.vectors.T).double()
    torch.testing.assert_close(after - before, moved.expand_as(before), atol=1e-4, rtol=1e-4)


def test_saved_and_loaded(tmp_path):
    found = directions().pick([2, 0])
    found.save(tmp_path / "kept")
    again = Directions.load(tmp_path / "kept")
    assert torch.equal(again.vectors, found.vectors)
    assert again.index.equals(found.index)
    assert (again.site, again.provenance, again.reading) == (
        *(found.site, found.provenance, found.reading),
    )


def test_mistakes(tmp_path, model_folder, own_home):
    with pytest.raises(ValueError, match="3 labels for vectors of shape"):
        Directions(Site("resid_post", 0), torch.ones(2, 4), directions().index)
    with pytest.raises(ValueError, match="the index of directions lacks name"):
        Directions(Site("resid_post", 0), torch.ones(1, 4), pd.DataFrame({"label": ["a"]}))
    with pytest.raises(UserError, match="have 32 numbers each, not 31 as these activations"):
        directions().scores(torch.ones(2, 31))
    with pytest.raises(UserError, match="have 8 numbers each, not 32 as the residual stream"):
        directions(d=8).decode(Weights(model_folder("llama")))
    with pytest.raises(UserError, match="holds no directions"):
        Directions.load(tmp_path)
    directions().save(tmp_path)
    about = (tmp_path / "directions.json").read_text()
    for damaged in ("{}", '{"site": "nowhere", "provenance": {}}', "[]"):
        (tmp_path / "directions.json").write_text(damaged)
        with pytest.raises(UserError):
            Directions.load(tmp_path)
    (tmp_path / "directions.json").write_text(about)
    index = pd.read_parquet(tmp_path / "index.parquet")
    index.iloc[::-1].to_parquet(tmp_path / "index.parquet", index=False)  # labels of other rows
    with pytest.raises(UserError, match="index.parquet is not what was saved with directions.json"):
        Directions.load(tmp_path)
    unbound = {name: value for name, value in json.loads(about).items() if name != "sha256"}
    (tmp_path / "directions.json").write_text(json.dumps(unbound))  # as earlier versions wrote it
    directions().index.head(2).to_parquet(tmp_path / "index.parquet")
    with pytest.raises(UserError, match="index.parquet has 2 rows, not 3: make them anew"):
        Directions.load(tmp_path)
    (tmp_path / "vectors.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match="cannot be read"):
        Directions.load(tmp_path)
    broken = directions()
    broken.vectors[1, 3] = torch.nan
    broken.save(tmp_path)
    with pytest.raises(UserError, match="holds a NaN or an infinity: make them anew"):
        Directions.load(tmp_path)
    with pytest.raises(UserError, match="the vocabulary has 211 tokens, not 212"):
        directions().decode(Weights(model_folder("llama")), k=212)


def test_neurons_are_directions_where_they_act(model_folder, own_home):
    """Every neuron's score is its activation; a write vector is what is added."""
    folder = model_folder("qwen3")
    subject, weights = open_subject(folder), Weights(folder)
    batch = subject.pad([[3, 1, 4, 1, 5]])
    for kind in ("up", "gate"):
        neurons = [NeuronName(1, kind, n) for n in (7, 3)]
        found = neuron_directions(weights, neurons)
        at = clamp_site(neurons[0])
        got = subject.capture(batch, [found.site, at])
        want = got[at][..., [7, 3]].double()
        torch.testing.assert_close(found.scores(got[found.site]), want, atol=1e-5, rtol=1e-5)
    down = neuron_directions(weights, [parse_neuron("1.down.7")])
    got = subject.capture(batch, [down.site, "1.mlp_post"])
    assert down.read_at == Site("mlp_post", 1)
    fires = got[down.read_at][..., [7]]
    assert torch.equal(down.scores(got[down.read_at]), fires.double())
    with subject.edited(edits.clamp(Site("mlp_post", 1), 7, 0.0)):
        without = subject.capture(batch, [down.site])[down.site]
    added = fires * down.vectors[0]
    torch.testing.assert_close(got[down.site] - without, added, atol=1e-5, rtol=1e-5)


def test_a_write_vector_goes_through_the_norm_behind_it(model_folder, own_home):
    """Gemma's: what the MLP adds, times the norm's scale, differs by activation times vector."""
    folder = model_folder("gemma2")
    subject, weights = open_subject(folder), Weights(folder)
    down = neuron_directions(weights, [parse_neuron("1.down.7")])
    batch, hidden = subject.pad([[3, 1, 4, 1, 5]]), Site("mlp_post", 1)

    def scaled(*made):
        with subject.edited(*made):
            found = subject.capture(batch, [hidden, down.site])
        raw = found[hidden] @ weights.neurons("down", 1)
        scale = (raw.square().mean(-1, keepdim=True) + weights.spec.eps).sqrt()
        return found[down.site] * scale, found[hidden][..., 7:8]

    (with_it, activation), (without, _) = scaled(), scaled(edits.clamp(hidden, 7, 0.0))
    torch.testing.assert_close(with_it - without, activation * down.vectors[0])


def test_neurons_of_two_sites_are_no_one_set(model_folder, own_home):
    weights = Weights(model_folder("llama"))
    with pytest.raises(UserError, match="one layer and kind"):
        neuron_directions(weights, [parse_neuron("0.up.1"), parse_neuron("1.up.1")])
    with pytest.raises(UserError, match="no 0.up.48 in this model: layers 0..1, neurons 0..47"):
        neuron_directions(weights, [parse_neuron("0.up.48")])


def test_another_models_weights_are_named(dog_model, tmp_path, caplog):
    """The same path with new content, and another model of the same width."""
    folder = tmp_path / "model"
    shutil.copytree(dog_model, folder)
    made = Directions.of(torch.ones(32), "1.resid_post", str(folder), "v", "a test")
    made.decode(open_weights(str(folder)))
    assert "as it was" not in caplog.text
    before = replace(made, vectors=-made.vectors)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    made.decode(open_weights(str(folder)))
    said = f"these directions are of {folder} as it was: the content of its folder changed since"
    assert said in caplog.text
    now = Directions.of(torch.ones(32), "1.resid_post", str(folder), "v", "a test")
    before.note_other(now)
    apart = f"of two states of {folder}: the content of its folder changed in between"
    assert f"these are directions {apart}" in caplog.text
    assert why_not(before, now) == f"they are {apart}"
    other = Directions.of(torch.ones(32), "1.resid_post", str(dog_model), "v", "a test")
    assert why_not(now, other) == f"they are of two models, {folder} and {dog_model}"
    now.decode(open_weights(str(dog_model)))
    assert f"these directions are of {folder}, not of {dog_model}" in caplog.text


def test_a_scale_whose_square_overflows_is_refused(dog_model):
    made = Directions.of(torch.ones(32), "1.resid_post", str(dog_model), "v", "a test")
    with pytest.raises(UserError, match="overflows float32: give a smaller scale"):
        made.steer(0, 1e19)
