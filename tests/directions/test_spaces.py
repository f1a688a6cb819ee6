"""Cosines across sites, the nearest neurons, a text's scores and the split, each against the naive
code in float64."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig

from interp.cli import main
from interp.directions import Directions, open_directions
from interp.directions.compare import (
    AS_THEY_ARE,
    IN_STREAM,
    READS,
    WRITES,
    between,
    meaning,
    pairs,
    role,
    stream_cosine,
)
from interp.directions.encoder import Encoder
from interp.directions.figures import cosine_map
from interp.directions.inspect import scores_on_text
from interp.directions.nearest import nearest_neurons, neurons_there
from interp.directions.provenance import Provenance
from interp.directions.sources import neuron_directions
from interp.directions.splitting import split_on_text
from interp.errors import UserError
from interp.latents.nearest import nearest
from interp.model.neuron import parse_neuron
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.model.weights import Weights
from interp.saes import SaeSplit, wrap

from .gains import with_gain


def at(site, vectors, model=""):
    index = pd.DataFrame({"name": [f"v{i}" for i in range(len(vectors))]})
    return Directions(Site.parse(site), vectors, index, Provenance("test", model))


def unit(rows):
    rows = np.asarray(rows, np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def rows_in_stream(weights):
    """Every neuron's row by name, with the norm's gain and mean for those that read: naive."""
    found = {}
    for layer in range(weights.spec.n_layers):
        gain = weights.norm("mlp", layer).gain.numpy()
        for kind in weights.spec.kinds:
            rows = weights.in_stream(kind, layer).double().numpy()
            if kind != "down":
                rows = rows * gain
                if weights.spec.norm == "layer":
                    rows = rows - rows.mean(1, keepdims=True)
            found |= {f"{layer}.{kind}.{i}": row for i, row in enumerate(rows)}
    return found


@pytest.mark.parametrize("family", ["gemma2", "gpt2", "qwen3"])
def test_the_nearest_neurons_are_those_of_the_whole_product(family, model_folder, own_home):
    weights = Weights(model_folder(family))
    every = rows_in_stream(weights)
    names, matrix = list(every), unit(np.stack(list(every.values())))
    torch.manual_seed(0)
    planted = torch.tensor(-2 * every["1.down.5"], dtype=torch.float32)
    given = at("0.resid_post", torch.stack([planted, torch.randn(weights.spec.d_model)]))
    table = nearest_neurons(given, weights, limit=7)
    for row, (_, found) in enumerate(table.groupby("name")):
        cosines = matrix @ unit(given.vectors[[row]].numpy())[0]
        best = np.argsort(-np.abs(cosines))[:7]
        assert found["neuron"].tolist() == [names[i] for i in best]
        np.testing.assert_allclose(found["cosine"], cosines[best], atol=1e-6)
    assert table.iloc[0][["neuron", "layer", "kind"]].tolist() == ["1.down.5", 1, "down"]
    assert table.iloc[0]["cosine"] == pytest.approx(-1)
    assert neurons_there(weights) == len(names)
    some = nearest_neurons(given, weights, 3, ["up"])
    assert set(some["kind"]) == {"up"}


def test_a_neuron_that_reads_is_found_before_its_norm_and_not_beside_itself(model_folder, own_home):
    weights = Weights(model_folder("gemma2"))
    own = neuron_directions(weights, [parse_neuron("1.up.3")])
    copy = replace(own, index=own.index.assign(name="a copy"))
    found = nearest_neurons(copy, weights, 3)
    first = found.iloc[0]
    assert (first["neuron"], first["cosine"]) == ("1.up.3", pytest.approx(1))
    others = nearest_neurons(own, weights, 2)
    assert others["neuron"].tolist() == found["neuron"].tolist()[1:]


@pytest.mark.parametrize("family", ["gemma2", "gpt2"])
def test_composition_is_the_direct_path_from_one_neuron_to_another(family, model_folder, own_home):
    """w_in . w_out by what the norm and the projection do to a step along w_out, in float64."""
    weights = Weights(model_folder(family))
    kind = "up" if "up" in weights.spec.kinds else weights.spec.kinds[0]
    writes = neuron_directions(weights, [parse_neuron("0.down.2")])
    reads = neuron_directions(weights, [parse_neuron(f"1.{kind}.4"), parse_neuron(f"1.{kind}.9")])
    got = stream_cosine(writes, reads, weights)[0]
    step = writes.vectors[0].double()
    gain = weights.norm("mlp", 1).gain
    moved = (step - step.mean() if weights.spec.norm == "layer" else step) * gain
    change = reads.vectors.double() @ moved
    rows = rows_in_stream(weights)
    lengths = [np.linalg.norm(rows[name]) for name in reads.names]
    want = change.numpy() / (np.array(lengths) * float(step.norm()))
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-9)
    table = pairs(writes, reads, weights=weights)
    np.testing.assert_allclose(sorted(table["in_stream"]), sorted(want), rtol=1e-9)
    assert "composition" in meaning(writes, reads)
    assert "Both read" in meaning(reads, reads)


@pytest.mark.parametrize("family", ["gemma2", "gpt2"])
def test_a_latent_behind_a_norm_writes_there(family, model_folder, own_home):
    """A planted step of the stream, as the norm makes it: the decoder's row of an SAE of the MLP's
    input is that step again, and what reads there reads as much of both."""
    weights = Weights(model_folder(family))
    gain = weights.norm("mlp", 1).gain.double()
    torch.manual_seed(0)
    step = torch.randn(1, weights.spec.d_model, dtype=torch.float64)
    step = step - step.mean() if weights.spec.norm == "layer" else step
    inner = StandardSAE(StandardSAEConfig(d_in=weights.spec.d_model, d_sae=40))
    inner.cfg.metadata.hook_name = "blocks.1.mlp.hook_in"
    with torch.no_grad():
        inner.W_dec[7] = (step * gain)[0]
    index = pd.DataFrame({"name": ["latent 7"], "latent": [7]})
    latent = Directions(Site("mlp_in", 1), inner.W_dec[7:8].detach(), index, reading=Encoder("x"))
    written = at("0.mlp_out", step.float())
    kind = weights.spec.kinds[0]
    reads = neuron_directions(weights, [parse_neuron(f"1.{kind}.4")])
    assert [role(each) for each in (latent, written, reads)] == [WRITES, WRITES, READS]
    assert "Both write" in meaning(latent, written)
    assert "composition" in meaning(latent, reads)
    assert float(stream_cosine(latent, written, weights)) == pytest.approx(1, abs=1e-6)
    ways = [stream_cosine(each, reads, weights) for each in (latent, written)]
    torch.testing.assert_close(*ways, rtol=0, atol=1e-6)
    found = nearest(written, wrap(inner), 1, "decoder", weights)
    assert found["latent"].tolist() == [7]
    assert found["decoder"].tolist() == pytest.approx([1])
    assert nearest_neurons(latent, weights, 3)["cosine"].tolist() == pytest.approx(
        nearest_neurons(written, weights, 3)["cosine"].tolist(), abs=1e-5
    )


@pytest.mark.parametrize("family", ["gemma2", "gpt2"])
def test_a_map_of_cosines_has_one_definition(family, model_folder, own_home):
    """A gate and an up neuron of one site count their norm where a down neuron is beside them."""
    weights = Weights(model_folder(family))
    kind = weights.spec.kinds[0]
    names = [f"1.{kind}.4", f"1.{kind}.9", "1.down.4", "0.down.2", f"0.{kind}.1"]
    every = [neuron_directions(weights, [parse_neuron(name)]) for name in names]
    rows = rows_in_stream(weights)
    whole = unit(np.stack([rows[name] for name in names]))
    got = between(every)
    np.testing.assert_allclose(got.cosine.numpy(), whole @ whole.T, atol=1e-6)
    assert got.told == IN_STREAM
    alone = between(every[:2])
    bare = unit(torch.cat([each.vectors for each in every[:2]]).numpy())
    np.testing.assert_allclose(alone.cosine.numpy(), bare @ bare.T, atol=1e-6)
    assert alone.told == AS_THEY_ARE
    assert abs(float(alone.cosine[0, 1] - got.cosine[0, 1])) > 1e-3
    gone = replace(every[0], provenance=replace(every[0].provenance, model="/nowhere"))
    lacking = between([gone, *every[1:]])
    assert lacking.cosine[0].isnan().all()
    assert "is left out: no model '/nowhere'" in lacking.told
    np.testing.assert_allclose(lacking.cosine[1:, 1:].numpy(), got.cosine[1:, 1:].numpy())


def test_two_of_one_name_are_two_rows_of_the_map_and_a_long_name_is_cut():
    names = ["same", "same", " are", "a title of " + "long" * 20 + " words"]
    values = torch.arange(16.0).reshape(4, 4) / 16
    figure = cosine_map(values, names, names)
    (heat,) = figure.data
    assert len(set(heat.x)) == len(set(heat.y)) == 4
    np.testing.assert_array_equal(heat.z, values)
    ticks = figure.layout.xaxis.ticktext
    assert ticks[:3] == ("same", "same", "␣are")
    assert len(ticks[3]) <= 25
    assert heat.customdata[0][3][1] == names[3]


def test_pairs_stand_in_the_order_of_the_cosine_that_is_shown(model_folder, own_home):
    """A gain that lowers the coordinate of what is nearest without it."""
    weights = Weights(model_folder("gemma2"))
    gain = weights.norm("mlp", 1).gain.double()
    low, high = int(gain.abs().argmin()), int(gain.abs().argmax())
    read = torch.zeros(1, weights.spec.d_model)
    read[0, low], read[0, high] = 1.0, float(gain[low] / gain[high]) ** 0.5
    written = torch.eye(weights.spec.d_model)[[low, high]]
    table = pairs(at("1.mlp_in", read), at("1.mlp_out", written), weights=weights)
    assert table["other"].tolist() == ["v1", "v0"]
    assert table["in_stream"].abs().is_monotonic_decreasing
    assert not table["cosine"].abs().is_monotonic_decreasing


@pytest.mark.parametrize(
    ("ours", "theirs", "fine"),
    [
        ("3.resid_pre", "9.mlp_out", True),
        ("3.mlp_in", "final_norm_in", True),
        ("3.mlp_post", "3.mlp_post", True),
        ("3.mlp_post", "4.mlp_post", False),
        ("3.head_z.1", "3.head_z.2", False),
        ("3.resid_pre", "3.mlp_gate", False),
        ("logits", "3.resid_post", False),
        ("a.b:out", "a.b:out", True),
        ("a.b:out", "a.c:out", False),
    ],
)
def test_a_cosine_of_two_spaces_is_refused_by_name(ours, theirs, fine):
    a, b = at(ours, torch.randn(1, 8)), at(theirs, torch.randn(2, 8))
    if fine:
        assert a.cosine(b).shape == (1, 2)
    else:
        with pytest.raises(UserError, match="lie in two spaces") as refused:
            a.cosine(b)
        assert ours in str(refused.value)
        assert theirs in str(refused.value)


def test_the_nearest_neurons_of_no_stream_are_refused(model_folder, own_home):
    weights = Weights(model_folder("qwen3"))
    with pytest.raises(UserError, match="not those of the residual stream"):
        nearest_neurons(at("0.mlp_post", torch.randn(1, 32)), weights)
    with pytest.raises(UserError, match="no 'side' neurons"):
        nearest_neurons(at("0.resid_pre", torch.randn(1, 32)), weights, kinds=["side"])


def test_scores_of_a_text_are_the_activations_of_the_neuron(dog_model, own_home, capsys):
    subject = open_subject(dog_model)
    neuron = open_directions("1.down.17", str(dog_model))
    table = scores_on_text(subject, neuron, "w5 dog w9")
    site = Site.parse("1.mlp_post")
    want = subject.capture(subject.tokens("w5 dog w9"), [site])[site][0, :, 17]
    assert table["score"].tolist() == pytest.approx(want.tolist())
    assert table["token"].tolist()[-3:] == ["w5", "dog", "w9"]
    words = ["directions", "text", "1.down.17", "--text", "w5 dog w9", "--model", str(dog_model)]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["results"]
    assert [row["score"] for row in told] == pytest.approx(want.tolist())
    with pytest.raises(UserError, match="the text is empty"):
        scores_on_text(subject, neuron, "  ")


def test_an_error_that_is_linear_is_called_linear_on_a_text(dog_model, own_home, tmp_path):
    """An SAE that gives nothing back: all of the score is a linear function of the activation,
    behind a norm whose gain makes it small."""
    inner = StandardSAE(StandardSAEConfig(d_in=32, d_sae=40))
    inner.cfg.metadata.hook_name = "blocks.1.mlp.hook_in"
    with torch.no_grad():
        inner.W_dec.zero_()
        inner.b_dec.zero_()
    (tmp_path / "text.txt").write_text(" ".join(f"w{i * i % 97}" for i in range(3000)))
    small = with_gain(dog_model, tmp_path / "small", torch.full((32,), 1e-2))
    subject, given = open_subject(small), open_directions("1.up.3,1.up.5", str(small))
    where = (str(tmp_path / "text.txt"), 2048, 32)
    table = split_on_text(subject, given, wrap(inner), *where)
    assert table["linear"].tolist() == pytest.approx([1, 1], abs=1e-6)
    assert table["nonlinear_spread"].max() < 1e-6
    with pytest.raises(UserError, match="31 tokens do not determine a linear map of 32 numbers"):
        split_on_text(subject, given, wrap(inner), where[0], 64, 32)


def test_the_split_on_a_text_is_that_of_its_halves(dog_model, own_home, tmp_path, capsys):
    subject = open_subject(dog_model)
    torch.manual_seed(1)
    inner = StandardSAE(StandardSAEConfig(d_in=32, d_sae=40))
    inner.cfg.metadata.hook_name = "blocks.0.hook_resid_post"
    text = " ".join(f"w{i % 97}" for i in range(700))
    (tmp_path / "text.txt").write_text(text)
    given, sae = at("0.resid_post", torch.randn(2, 32), str(dog_model)), wrap(inner)
    table = split_on_text(subject, given, sae, str(tmp_path / "text.txt"), 512, 32)
    assert table[["reconstruction", "linear", "nonlinear"]].sum(1).tolist() == pytest.approx([1, 1])
    # the second half of the rows, without the first position of each
    ids = subject.tokens(text).ids[0].tolist()
    rows = [ids[i * 32 : (i + 1) * 32] for i in range(16)]
    halves = [
        torch.cat(
            [subject.capture(subject.pad([row]), [given.site])[given.site][0, 1:] for row in part]
        )
        for part in (rows[:8], rows[8:])
    ]
    want = given.split(SaeSplit.of(sae, halves[0].float()), halves[1].float())
    np.testing.assert_allclose(table["linear"], want["linear"], atol=1e-6)
    inner.save_model(tmp_path / "sae")
    given.save(tmp_path / "set")
    where = ["--corpus", str(tmp_path / "text.txt"), "--tokens", "512", "--length", "32", "--json"]
    words = ["directions", "split", str(tmp_path / "set"), "--sae", str(tmp_path / "sae")]
    assert main([*words, *where]) == 0
    told = json.loads(capsys.readouterr().out)["results"]
    assert [row["linear"] for row in told] == pytest.approx(table["linear"].tolist(), abs=1e-6)


def test_nearest_as_a_command(model_folder, own_home, capsys):
    folder = str(model_folder("qwen3"))
    assert main(["directions", "nearest", "1.down.2", "--model", folder, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "1.down.2" not in [row["neuron"] for row in told["results"]]
    assert len(told["results"]) == 10
    assert 0 < told["chance"] < 1
