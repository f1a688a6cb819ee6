"""Random directions in an atlas: p and q by their definitions, and what they are drawn from."""

import shutil
from pathlib import Path

import duckdb
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from interp.errors import UserError
from interp.model.weights import Weights
from interp.neurons import search
from interp.neurons.atlas import AtlasConfig
from interp.neurons.chance import p_values, q_by_steps
from interp.neurons.chance_steps import Steps
from interp.neurons.decode import random_like
from interp.runs.store import Store
from interp.runs.study import run_or_load


def test_p_counts_the_random_scores_at_or_above():
    random = np.array([1.0, 2.0, 3.0, np.nan])
    found = p_values([0.5, 2.0, 2.5, 9.0, np.nan], random)
    np.testing.assert_array_equal(found, [1.0, 3 / 4, 2 / 4, 1 / 4, np.nan])


def q_values(scores, rows, random):
    steps = Steps(random)
    steps.add(rows)
    return q_by_steps(scores, steps.steps)


def test_q_is_that_of_benjamini_and_hochberg():
    """Their own step-up rule: row i of N, ordered by p, has q = min over j >= i of N p_j / j."""
    generator = np.random.default_rng(3)
    rows, random = generator.normal(0.3, 1.5, 200).round(1), generator.normal(size=64).round(1)
    p = np.array(p_values(rows, random))
    order = np.argsort(p, kind="stable")
    steps = 200 * p[order] / np.arange(1, 201)
    want = np.minimum(1.0, np.minimum.accumulate(steps[::-1])[::-1])
    np.testing.assert_allclose(np.array(q_values(rows, rows, random))[order], want)
    # between two rows it is that of the lower one; below all rows 1; nothing for nothing
    low, high = np.unique(rows)[30:32]
    between, at = q_values([(low + high) / 2, low], rows, random)
    assert between == at
    np.testing.assert_array_equal(q_values([-99.0, np.nan], rows, random), [1.0, np.nan])


def test_random_directions_have_the_lengths_of_neurons_and_no_direction():
    vectors = torch.randn(7, 3) * torch.arange(7.0)[:, None]
    drawn, found = random_like(vectors, 20_000, [1, 2])
    lengths = vectors.norm(dim=1)
    lengths[0] = 1.0  # the zero vector's
    torch.testing.assert_close(found.norm(dim=1), lengths[drawn])
    units = found / found.norm(dim=1, keepdim=True)
    torch.testing.assert_close(units.mean(0), torch.zeros(3), atol=0.02, rtol=0)
    torch.testing.assert_close(units.T @ units / 20_000, torch.eye(3) / 3, atol=0.01, rtol=0)
    assert np.bincount(drawn).min() > 2_500
    assert torch.equal(random_like(vectors, 20_000, [1, 2])[1], found)
    assert not torch.equal(random_like(vectors, 20_000, [2, 2])[1], found)


@pytest.fixture(scope="module")
def untrained(model_folder, tmp_path_factory):
    """An atlas of weights that are random themselves, but for one planted neuron."""
    folder = tmp_path_factory.mktemp("untrained") / "model"
    shutil.copytree(model_folder("llama", num_hidden_layers=5), folder)
    tensors = load_file(folder / "model.safetensors")
    target = tensors["lm_head.weight"][123]
    tensors["model.layers.1.mlp.down_proj.weight"][:, 17] = 10 * target / target.norm()
    save_file(tensors, folder / "model.safetensors")
    store = Store(tmp_path_factory.mktemp("runs"))
    return run_or_load(AtlasConfig(model=str(folder), k=8, random=301), store)


def test_neurons_that_are_random_are_nothing_special(untrained):
    """720 vectors, both signs: p is uniform over them, and only the planted one has a small q."""
    rows = search.top(untrained, 10_000).set_index("name")
    assert len(rows) == 2 * 3 * 5 * 48
    for tail in (0.02, 0.1, 0.5):
        for p in ("p", "coherence_p"):
            assert (rows[p] <= tail).mean() == pytest.approx(tail, abs=3 * (tail / 1440) ** 0.5)
    planted = rows.iloc[0]
    assert planted.name == "1.down.17"
    assert planted["p"] == 1 / (1 + 2 * 3 * 301)
    assert planted["q"] == pytest.approx(1440 / (1 + 2 * 3 * 301))
    # a word's score in a search is compared with the same random scores
    found = search.find(untrained, "#123").iloc[0]
    assert (found["name"], found["p"], found["q"]) == ("1.down.17", planted["p"], planted["q"])
    shown = search.show(untrained, "1.down.17").iloc[0]
    assert tuple(shown[["score", "p", "q"]]) == tuple(planted[["score", "p", "q"]])


def test_a_search_and_a_card_give_a_row_the_same_chances(untrained):
    """To the last digit: q jumps where a row stands, and all of these stand on a step or a random
    direction's score of the same arithmetic."""
    for exact in (False, True):
        for row in search.top(untrained, 40).to_dict("records"):
            found = search.find(untrained, row["tokens"][0], exact, limit=10_000)
            own = found[(found["name"] == row["name"]) & (found["side"] == row["side"])].iloc[0]
            assert own["rank"] == 1
            assert tuple(own[["score", "p", "q"]]) == (row["score"], row["p"], row["q"])


def test_random_rows_are_those_of_the_directions(untrained):
    weights = Weights(Path(untrained.config["model"]))
    rows = duckdb.sql(f"SELECT * FROM {untrained.sql('random')}").df()
    assert (rows.groupby(["kind", "side"]).size() == 301).all()
    assert rows.groupby("layer").size().tolist() == [366, 360, 360, 360, 360]
    for layer, kind in ((0, "up"), (4, "down")):
        vectors, share = weights.neurons(kind, layer), 61 if layer == 0 else 60
        drawn, directions = random_like(vectors, share, [0, layer, *kind.encode()])
        logits = directions.double() @ weights.W_U().double().T
        part = rows[(rows["layer"] == layer) & (rows["kind"] == kind) & (rows["side"] == "bottom")]
        assert part["neuron"].tolist() == drawn.tolist()
        np.testing.assert_array_equal(
            np.stack(part["ids"]),
            (-logits).sort(dim=1, descending=True, stable=True).indices[:, :8],
        )
        z = (logits.mean(1) - logits.min(1).values) / logits.std(1, correction=0)
        np.testing.assert_allclose(part["z"], z, rtol=1e-4)


def test_the_seed_changes_the_random_directions_alone(model_folder, own_home):
    config = {"model": str(model_folder("llama")), "k": 4}
    first, second = (run_or_load(AtlasConfig(**config, seed=seed)) for seed in (0, 1))
    files = [{name: part["sha256"] for name, part in run.manifest["files"].items()}
             for run in (first, second)]  # fmt: skip
    assert files[0]["neurons/L000.parquet"] == files[1]["neurons/L000.parquet"]
    assert files[0]["random/L000.parquet"] != files[1]["random/L000.parquet"]


def test_there_must_be_random_directions(model_folder, own_home):
    with pytest.raises(UserError, match="--random must be at least 1, not 0"):
        run_or_load(AtlasConfig(model=str(model_folder("llama")), random=0))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_random_directions_are_as_short_or_long_as_the_neurons(scale):
    vectors = torch.randn(5, 32, generator=torch.Generator().manual_seed(0)) * scale
    drawn, found = random_like(vectors, 20, [1])
    want = vectors.double().norm(dim=1)[drawn]
    torch.testing.assert_close(found.double().norm(dim=1), want, rtol=1e-5, atol=0)
