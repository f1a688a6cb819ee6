"""What inputs are centred and scaled by, dead latents, and weights in half the space."""

import json

import numpy as np
import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError
from sae_lens import SAE, JumpReLUSAE, JumpReLUSAEConfig, StandardTrainingSAE
from sae_lens import StandardTrainingSAEConfig as TrainingConfig
from safetensors.torch import load_file, save_file

from interp.errors import UserError
from interp.runs.halves import halved
from interp.saes import open_sae
from interp.saes.resample import resample
from interp.saes.spread import Spread


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_spread_is_that_of_the_tokens_that_are_not_massive():
    x = gaussian(2000, 8) * torch.linspace(0.5, 3, 8) + 50
    massive = x.clone()
    massive[7:300:60] = 1e4 * gaussian(5, 8, seed=1)
    left = np.delete(x.double().numpy(), range(7, 300, 60), axis=0)
    spread = Spread.of(massive)
    centre = left.mean(0)
    distances = np.linalg.norm(left - centre, axis=1)
    np.testing.assert_allclose(spread.centre, centre, rtol=1e-12)
    assert float(spread.distance) == pytest.approx(distances.mean(), rel=1e-12)
    from_median = np.linalg.norm(left - np.median(left, axis=0), axis=1)
    assert float(spread.limit) == pytest.approx(10 * np.median(from_median), rel=1e-2)
    inputs = spread.scaled(massive[spread.near(massive)])
    expected = (left - centre) * 8**0.5 / distances.mean()
    np.testing.assert_allclose(inputs, expected, rtol=0, atol=1e-5)


def test_tokens_at_the_centre_do_not_make_the_others_massive():
    """Most tokens of a ReLU's output are 0 at once: the others are the data."""
    x = torch.zeros(1000, 4)
    x[::10] = gaussian(100, 4).abs()
    assert Spread.of(x).near(x).sum() == 1000


@pytest.mark.parametrize(
    ("x", "says"),
    [(torch.ones(9, 3), "same for every token"), (torch.full((9, 3), torch.nan), "hold a NaN")],
)
def test_nothing_to_learn_is_said(x, says):
    with pytest.raises(UserError, match=says):
        Spread.of(x)


@pytest.mark.parametrize("every", [False, True])
def test_dead_latents_begin_again_at_the_largest_errors(every):
    """Each at the error of another token; the one with the largest is always among them."""
    torch.manual_seed(0)
    sae = StandardTrainingSAE(TrainingConfig(d_in=6, d_sae=10))
    optimiser = torch.optim.Adam(sae.parameters())
    x = 1e-3 * gaussian(50, 6)
    x[13] = 5 * gaussian(6, seed=3)
    sae(x).square().sum().backward()
    optimiser.step()
    dead = torch.ones(10, dtype=torch.bool) if every else torch.arange(10) % 3 == 0
    with torch.no_grad():
        sae.b_enc[dead] = -99.0
    before = {name: weight.detach().clone() for name, weight in sae.named_parameters()}
    z = torch.relu((x - before["b_dec"]) @ before["W_enc"] + before["b_enc"])
    error = x - z @ before["W_dec"] - before["b_dec"]
    resample(sae, optimiser, dead, x, 0)
    rows, columns = sae.W_dec.detach()[dead], sae.W_enc.detach().T[dead]
    cosines = torch.nn.functional.cosine_similarity(rows[:, None], error, dim=2)
    drawn = cosines.argmax(1).tolist()
    torch.testing.assert_close(cosines.amax(1), torch.ones(len(rows)))
    assert len(set(drawn)) == len(drawn)
    assert 13 in drawn
    others = torch.ones(10, dtype=torch.bool) if every else ~dead
    norm = before["W_dec"].norm(dim=1)[others].mean()
    torch.testing.assert_close(rows.norm(dim=1), norm.expand(len(rows)))
    short = 0.2 * before["W_enc"].norm(dim=0)[others].mean()
    torch.testing.assert_close(columns, rows / norm * short)
    assert (sae.b_enc[dead] == 0).all()
    for name, axis in (("W_dec", 0), ("W_enc", 1), ("b_enc", 0)):
        weight = getattr(sae, name)
        moments = optimiser.state[weight]["exp_avg_sq"].transpose(0, axis)
        assert (moments[dead] == 0).all()
        assert every or (moments[~dead] > 0).any()
        kept = weight.detach().transpose(0, axis)[~dead]
        assert torch.equal(kept, before[name].transpose(0, axis)[~dead])


def test_half_the_space_where_nothing_is_lost():
    fine = {"a": gaussian(50, 8), "b": torch.zeros(3)}
    assert {x.dtype for x in halved(fine).values()} == {torch.float16}
    for bad in (torch.full((3,), 1e5), torch.full((3,), 1e-7), torch.tensor([torch.nan])):
        kept = halved(fine | {"c": bad})
        assert all(
            torch.equal(
                kept[name],
                x,
            )
            for name, x in fine.items()
        )
        assert {x.dtype for x in kept.values()} == {torch.float32}
    offset = {"b_dec": torch.full((4,), 1000.3)}
    assert halved(offset)["b_dec"].dtype == torch.float16
    assert halved(offset, {"b_dec": 1.0})["b_dec"].dtype == torch.float32


def test_thresholds_and_weights_come_whole_by_both_roads(tmp_path, monkeypatch):
    """Stored in float32 under a config that says bfloat16: a threshold keeps its 24 bits."""
    inner = JumpReLUSAE(JumpReLUSAEConfig(d_in=6, d_sae=10))
    inner.cfg.metadata.hook_name = "blocks.2.hook_resid_post"
    inner.save_model(tmp_path)
    weights = {name: gaussian(*x.shape, seed=4) for name, x in inner.state_dict().items()}
    weights["threshold"] = 1 + 2.0**-20 * torch.arange(10)
    save_file(weights, tmp_path / "sae_weights.safetensors")
    config = json.loads((tmp_path / "cfg.json").read_text()) | {"dtype": "bfloat16"}
    (tmp_path / "cfg.json").write_text(json.dumps(config))

    def local(repo_id, filename, **options):
        path = tmp_path / filename.rpartition("/")[2]
        if not path.exists():
            raise EntryNotFoundError(filename)
        return str(path)

    monkeypatch.setattr("sae_lens.loading.pretrained_sae_loaders.hf_hub_download", local)
    assert SAE.load_from_disk(tmp_path).threshold.dtype == torch.bfloat16
    for source in (tmp_path, "some/where:sae"):
        opened = open_sae(source)
        for name, values in opened.inner.named_parameters():
            assert torch.equal(values.detach(), weights[name])
    assert load_file(tmp_path / "sae_weights.safetensors")["threshold"].unique().numel() == 10
