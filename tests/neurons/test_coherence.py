"""Coherence: a planted group is found by it, one word alone is none, and a gain changes nothing."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from interp.errors import UserError
from interp.neurons import search
from interp.neurons.atlas import AtlasConfig
from interp.neurons.coherence import coherence, whitened
from interp.runs.study import run_or_load


def test_whitened_rows_have_length_1_and_one_variance_each_way():
    readout = torch.randn(3_000, 6) @ torch.randn(6, 6) + 5
    readout[:, 5] = readout[:, 4]  # an empty direction
    units = whitened(readout).double()
    torch.testing.assert_close(units.norm(dim=1), torch.ones(3_000).double(), atol=2e-3, rtol=0)
    spread = torch.linalg.eigvalsh(units.T @ units / 3_000)
    assert float(spread[0]) == pytest.approx(0, abs=1e-3)
    np.testing.assert_allclose(spread[1:], 1 / 5, rtol=0.15)


@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e25])
@pytest.mark.parametrize("longer", [1.0, 1e4, 1e6])
def test_neither_scale_nor_one_long_token_hides_the_others(longer, scale):
    """A token 5,000 times longer than the others left all other directions empty, so that each
    pair of tokens had a cosine of 1 or -1; and a scale of 1e20 was NaN."""
    readout = torch.randn(500, 16, generator=torch.Generator().manual_seed(0))
    readout[499] *= longer
    rows, words = torch.arange(495).reshape(-1, 5), np.arange(500)
    C = (readout - readout.mean(0)).double()
    P = torch.linalg.inv(C.T @ C / 500)
    products = C @ P @ C.T
    cosines = products / (products.diagonal()[:, None] * products.diagonal()).sqrt()
    wanted = [(cosines[row][:, row].sum() - 5) / 20 for row in rows]
    found = coherence(rows, whitened(readout * scale), words)
    torch.testing.assert_close(found.double(), torch.stack(wanted), atol=2e-3, rtol=0)


def test_pairs_of_one_word_do_not_count():
    """Tokens 0, 1 and 2 point one way, 3 another; 0 and 1 are of one word."""
    units, words = torch.eye(2)[[0, 0, 0, 1]], np.array([7, 7, 8, 9])
    rows = torch.tensor([[0, 1, 2], [0, 1, 0], [0, 1, 3], [0, 2, 3]])
    np.testing.assert_allclose(coherence(rows, units, words), [1, np.nan, 0, 1 / 3], atol=1e-6)


def test_a_gain_on_the_stream_changes_nothing():
    readout, gain = torch.randn(500, 8), torch.rand(8) + 0.1
    rows, words = torch.randint(500, (50, 5)), np.arange(500)
    plain, scaled = (coherence(rows, whitened(x), words) for x in (readout, readout * gain))
    torch.testing.assert_close(plain, scaled, atol=5e-3, rtol=0, equal_nan=True)


def test_a_group_is_found_by_coherence_and_not_by_score(model_folder, own_home, tmp_path):
    """Tokens 40..47 have much in common, and neuron 0.down.5 writes what they share; 1.down.17
    writes one token."""
    folder = tmp_path / "group"
    shutil.copytree(model_folder("llama"), folder)
    tensors = load_file(folder / "model.safetensors")
    head = tensors["lm_head.weight"]
    shared = head[40] / head[40].norm()
    length = head.norm(dim=1).mean()
    head[40:48] = 0.5 * head[40:48] + length * shared
    tensors["model.layers.0.mlp.down_proj.weight"][:, 5] = 0.3 * shared
    tensors["model.layers.1.mlp.down_proj.weight"][:, 17] = head[123]
    save_file(tensors, folder / "model.safetensors")
    run = run_or_load(AtlasConfig(model=str(folder), k=8))
    best = search.top(run, 1, by="coherence").iloc[0]
    assert (best["name"], best["side"]) == ("0.down.5", "top")
    assert set(best["ids"]) == set(range(40, 48))
    assert best["coherence_p"] == 1 / 3073
    by_score = search.top(run, 1).iloc[0]
    assert (by_score["name"], by_score["p"]) == ("1.down.17", 1 / 3073)
    assert by_score["coherence_p"] > 100 * best["coherence_p"]
    found = search.find(run, "#44", by="coherence")
    assert found["name"].iloc[0] == "0.down.5"
    assert list(found["coherence"]) == sorted(found["coherence"], reverse=True)
    with pytest.raises(UserError, match="rank by score or coherence, not by 'z'"):
        search.find(run, "#44", by="z")
