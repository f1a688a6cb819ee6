"""The latents like a direction, against cosines in numpy; chance against random directions."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from sae_lens import TopKSAE, TopKSAEConfig, Transcoder, TranscoderConfig

from interp.cli import main
from interp.directions import Directions
from interp.directions.sources import neuron_directions
from interp.errors import UserError
from interp.latents.nearest import BLOCK, at_least, chance_level, cosine, nearest
from interp.model.neuron import NeuronName
from interp.model.site import Site
from interp.model.weights import Weights
from interp.saes import open_sae, wrap

D, LATENTS = 32, 64


def random_sae(**metadata):
    torch.manual_seed(3)
    inner = TopKSAE(TopKSAEConfig(d_in=D, d_sae=LATENTS, k=4))
    with torch.no_grad():
        inner.W_enc.copy_(torch.randn(D, LATENTS))
        inner.W_dec.copy_(torch.randn(LATENTS, D) * torch.rand(LATENTS, 1) * 9)
    inner.cfg.metadata.hook_name = "blocks.0.hook_resid_post"
    for key, value in metadata.items():
        inner.cfg.metadata[key] = value
    return inner


def directions(vectors, site="0.resid_post"):
    index = pd.DataFrame({"name": [f"v{i}" for i in range(len(vectors))]})
    return Directions(Site.parse(site), vectors, index)


def plain(a, b):
    """Cosines [n, m] in float64."""
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    lengths = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
    return a @ b.T / lengths


def test_it_finds_what_was_planted_by_both_cosines():
    sae = wrap(random_sae())
    vectors = torch.stack([-3 * sae.W_dec[5] + 0.1 * torch.randn(D), 1e-20 * sae.W_enc[:, 9]])
    found = nearest(directions(vectors), sae, limit=4)
    want = {"decoder": plain(vectors, sae.W_dec), "encoder": plain(vectors, sae.W_enc.T)}
    assert len(found) == 2 * 2 * 4
    for (name, by), rows in found.groupby(["name", "by"]):
        own = want[by][int(name[1])]
        best = np.argsort(-np.abs(own))[:4]
        assert rows["latent"].tolist() == best.tolist()
        for side, cosines in want.items():
            np.testing.assert_allclose(rows[side], cosines[int(name[1])][best], atol=1e-6)
    first = found.groupby(["name", "by"]).first()
    assert first.loc["v0", "decoder"]["latent"] == 5
    assert first.loc["v0", "decoder"]["decoder"] < -0.99
    assert first.loc["v1", "encoder"]["latent"] == 9
    assert nearest(directions(vectors), sae, 2, "encoder")["by"].unique().tolist() == ["encoder"]


def test_blocks_are_the_whole():
    rows = torch.randn(BLOCK + 7, 5, generator=torch.Generator().manual_seed(0))
    rows[3] = 0
    vectors = torch.randn(2, 5, generator=torch.Generator().manual_seed(1))
    got = cosine(vectors, rows)
    assert not got[:, 3].any()
    kept = [i for i in range(len(rows)) if i != 3]
    np.testing.assert_allclose(got[:, kept], plain(vectors, rows[kept]), atol=1e-6)


@pytest.mark.parametrize(("width", "latents"), [(8, 20), (50, 300)])
def test_chance_is_that_of_random_directions(width, latents):
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal((3000, latents, width), dtype=np.float32)
    largest = np.abs(drawn[..., 0] / np.linalg.norm(drawn, axis=2)).max(1)
    for p in (0.05, 0.5, 0.9):
        level = chance_level(width, latents, p)
        assert (largest > level).mean() == pytest.approx(p, abs=4 * (p * (1 - p) / 3000) ** 0.5)
        assert at_least(np.array([level, -level]), width, latents) == pytest.approx([p, p])
    assert at_least(np.array([0.0, 1.0]), width, latents).tolist() == [1.0, 0.0]


def test_a_transcoder_is_compared_where_the_width_is_the_same():
    inner = Transcoder(TranscoderConfig(d_in=D, d_sae=10, d_out=6, apply_b_dec_to_input=False))
    inner.cfg.metadata.hook_name = "blocks.0.mlp.hook_in"
    inner.cfg.metadata.hook_name_out = "blocks.0.hook_mlp_out"
    sae = wrap(inner)
    found = nearest(directions(torch.randn(1, 6), "0.mlp_out"), sae)
    assert found["by"].unique().tolist() == ["decoder"]
    assert found["encoder"].isna().all()
    with pytest.raises(UserError, match="have 6 numbers, the SAE's encoder has others"):
        nearest(directions(torch.randn(1, 6)), sae, by="encoder")
    with pytest.raises(UserError, match="7 numbers, the SAE reads 32 and writes 6 at 0.mlp_in"):
        nearest(directions(torch.randn(1, 7)), sae)


def test_another_place_is_said(caplog):
    sae = wrap(random_sae())
    nearest(directions(torch.randn(1, D)), sae)
    assert not caplog.messages
    nearest(directions(torch.randn(1, D), "0.mlp_out"), sae)
    assert "directions are at 0.mlp_out, the SAE's latents at 0.resid_post" in caplog.messages[0]


def carried(vectors, weights, layer):
    """As a step in the stream is read behind the norm: times the gain, without the mean."""
    rows = np.asarray(vectors, np.float64) * weights.norm("mlp", layer).gain.double().numpy()
    return rows - rows.mean(1, keepdims=True) if weights.spec.norm == "layer" else rows


@pytest.mark.parametrize("family", ["gemma2", "gpt2"])
def test_what_reads_behind_a_norm_is_compared_in_the_stream(family, model_folder, own_home):
    """Both sides: a neuron with a residual SAE's latents, and a step with what a transcoder
    reads."""
    weights = Weights(model_folder(family))
    kind = weights.spec.kinds[0]
    reads = neuron_directions(weights, [NeuronName(1, kind, 4)])
    d = weights.spec.d_model
    torch.manual_seed(0)
    transcoder = Transcoder(TranscoderConfig(d_in=d, d_sae=10, d_out=d, apply_b_dec_to_input=False))
    transcoder.cfg.metadata.hook_name = "blocks.1.mlp.hook_in"
    transcoder.cfg.metadata.hook_name_out = "blocks.1.hook_mlp_out"
    with torch.no_grad():
        transcoder.W_enc.normal_()
        transcoder.W_dec.normal_()
    step = directions(torch.randn(1, d))
    for given, sae in ((reads, wrap(random_sae())), (step, wrap(transcoder))):
        own = carried(given.vectors, weights, 1) if given is reads else given.vectors
        read = sae.W_enc.T if given is reads else carried(sae.W_enc.T, weights, 1)
        want = {"decoder": plain(own, sae.W_dec)[0], "encoder": plain(own, read)[0]}
        found = nearest(given, sae, 5, weights=weights)
        for by, rows in found.groupby("by"):
            assert rows["latent"].tolist() == np.argsort(-np.abs(want[by]))[:5].tolist()
            for side in want:
                np.testing.assert_allclose(rows[side], want[side][rows["latent"]], atol=1e-6)
            level = at_least(want[by][rows["latent"]], d, sae.d_sae)
            np.testing.assert_allclose(rows["p"], level, rtol=1e-3)
    pd.testing.assert_frame_equal(
        nearest(reads, wrap(random_sae()), 5),
        nearest(reads, wrap(random_sae()), 5, weights=weights),
    )
    with pytest.raises(UserError, match="do not name their model"):
        nearest(step, wrap(transcoder))


def test_by_command(dog_model, own_home, tmp_path, capsys):
    inner = random_sae(model_name=str(dog_model))
    inner.save_model(tmp_path / "sae")
    one = Directions.of(inner.W_dec[7].detach(), "0.resid_post", str(dog_model), "seven")
    one.save(tmp_path / "seven")
    found = {}
    for direction, limit in ((str(tmp_path / "seven"), 3), (f"sae:{tmp_path / 'sae'}:7", 2)):
        args = ["saes", "nearest", direction, "--saes", str(tmp_path / "sae"), "--json"]
        assert main([*args, "--by", "decoder", "--limit", str(limit)]) == 0
        answer = json.loads(capsys.readouterr().out)
        found[direction] = [row["latent"] for row in answer["results"]]
        assert answer["chance"] == pytest.approx(chance_level(D, LATENTS))
    copy, itself = found.values()
    assert copy[0] == 7
    assert itself == copy[1:], "a latent is not listed beside itself"
    random_sae(model_name="gpt2-medium").save_model(tmp_path / "other")
    assert (
        main(["saes", "nearest", str(tmp_path / "seven"), "--saes", str(tmp_path / "other")]) == 2
    )
    assert "is an SAE of gpt2-medium, not of" in capsys.readouterr().err
    neuron = ["saes", "nearest", "0.down.3", "--model", str(dog_model)]
    assert main([*neuron, "--saes", str(tmp_path / "sae"), "--limit", "1"]) == 0
    assert "once in 20 times" in capsys.readouterr().out


def test_what_an_sae_says_and_a_copy_that_says_more(dog_model, own_home, tmp_path, capsys):
    inner = random_sae(hook_name=None, prepend_bos=True, exclude_special_tokens=[0, 2])
    inner.save_model(tmp_path / "sae")
    assert main(["saes", "show", str(tmp_path / "sae"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["metrics"]
    assert facts["reads"] == "32 numbers at not said"
    assert facts["texts"] == "behind a BOS"
    assert facts["special tokens"] == "ids 0, 2 left out"
    assert (facts["kind"], facts["active"]) == ("topk", "the 4 largest")
    told = ["--site", "0.resid_post", "--model", str(dog_model)]
    out = str(tmp_path / "told")
    assert main(["saes", "convert", str(tmp_path / "sae"), out, *told]) == 0
    sae = open_sae(out)
    assert (sae.site, sae.model, sae.bos) == ("0.resid_post", str(dog_model), "always")
    x = torch.randn(4, D, generator=torch.Generator().manual_seed(0))
    assert torch.equal(sae.encode(x), wrap(inner).encode(x))
    capsys.readouterr()
    assert main(["saes", "convert", str(tmp_path / "sae"), out, *told]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["saes", "show", out, "--site", "1.mlp_out"]) == 2
    assert "is an SAE of 0.resid_post, not of 1.mlp_out" in capsys.readouterr().err
