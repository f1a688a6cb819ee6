"""The atlas of the real model: what the README claims of it."""

import json
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pytest
import torch

from interp.model.weights import open_weights
from interp.neurons import search
from interp.neurons.atlas import AtlasConfig
from interp.runs.store import open_run

MODEL = "smollm2-135m"


@pytest.fixture(scope="module")
def atlas():
    """In the user's own store and cache, as `make demo` leaves it; by a process of its own."""
    command = [sys.executable, "-m", "interp", "neurons", "atlas", "--model", MODEL, "--json"]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    return open_run(Path(json.loads(printed)["run"]), AtlasConfig.STUDY)


def test_every_neuron_is_there(atlas):
    rows = duckdb.sql(
        f"SELECT count(*) AS n, count(DISTINCT (layer, kind, neuron)) AS vectors "
        f"FROM {atlas.sql('neurons')}"
    ).df()
    assert rows.to_dict("records") == [{"n": 2 * 138_240, "vectors": 138_240}]


def test_300_random_neurons_equal_dense_float64(atlas):
    weights = open_weights(MODEL)
    readout = weights.W_U().double()
    both = duckdb.sql(
        f"SELECT top.layer, top.kind, top.neuron, top.ids AS top, bottom.ids AS bottom "
        f"FROM {atlas.sql('neurons')} top JOIN {atlas.sql('neurons')} bottom "
        "USING (layer, kind, neuron) WHERE top.side = 'top' AND bottom.side = 'bottom' "
        "ORDER BY top.layer, top.kind, top.neuron"
    ).df()
    rows = both.sample(300, random_state=7)
    assert len(rows) == 300
    assert rows["kind"].nunique() == 3
    assert rows["layer"].nunique() >= 25
    for (layer, kind), part in rows.groupby(["layer", "kind"]):
        picked = torch.tensor(part["neuron"].to_numpy())
        logits = weights.neurons(kind, layer)[picked].double() @ readout.T
        np.testing.assert_array_equal(np.stack(part["top"]), best(logits, 16))
        np.testing.assert_array_equal(np.stack(part["bottom"]), best(-logits, 16))
    shown = search.show(atlas, f"{layer}.{kind}.{int(picked[0])}")
    np.testing.assert_array_equal(np.stack(shown["ids"]), np.stack(part.iloc[0][["top", "bottom"]]))


def best(logits, k):
    """Ids [n, k], highest logit first, equal ones by the lowest id; sorts only what can be among
    them."""
    least = logits.topk(k).values[:, -1:]
    kept = [(row >= at).nonzero()[:, 0] for row, at in zip(logits, least, strict=True)]
    rows = zip(logits, kept, strict=True)
    return np.stack([ids[row[ids].argsort(descending=True, stable=True)][:k] for row, ids in rows])


def test_dog_is_found(atlas):
    best = search.find(atlas, "dog").head(5)
    assert "29.gate.808" in set(best["name"])
    row = best[best["name"] == "29.gate.808"].iloc[0]
    assert list(row["tokens"][:4]) == [" dog", "dog", " cat", " Dogs"]


def test_memory_stays_under_both_read_outs_plus_a_layer_plus_1_gib(atlas):
    """Of the whole process, Python and torch included. The whitened rows, by which coherence goes,
    are a second read-out in half precision."""
    unembedding, layer = 49152 * 576 * 4, 3 * 1536 * 576 * 4
    assert 2**28 < atlas.manifest["peak_memory_bytes"] < 1.5 * unembedding + layer + 2**30
