"""Decoding: ids that are no token count nowhere, unless they are asked for."""

import shutil

import duckdb
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from interp.directions.sources import neuron_directions
from interp.errors import UserError
from interp.model.neuron import parse_neuron
from interp.model.readout import open_readout
from interp.model.weights import Weights
from interp.neurons import search
from interp.neurons.atlas import AtlasConfig
from interp.runs.study import run_or_load

ABSENT = [60, *range(200, 211)]
"""One token was taken out of the middle, the last 11 ids fill the vocabulary up."""
TOKENS = [i for i in range(211) if i not in ABSENT]


@pytest.fixture(scope="module")
def padded(model_folder, tmp_path_factory):
    """The rows that are no token are long: with them they would be first everywhere."""
    folder = tmp_path_factory.mktemp("padded") / "model"
    shutil.copytree(model_folder("llama"), folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"][ABSENT] *= 100
    save_file(tensors, folder / "model.safetensors")
    words = {f"w{i}": i for i in TOKENS}
    Tokenizer(WordLevel(words, unk_token="w0")).save(str(folder / "tokenizer.json"))
    return folder


def logits_of(folder, ids):
    weights = Weights(folder)
    return weights.neurons("down", 1).double() @ weights.W_U()[ids].double().T


def test_an_atlas_leaves_them_out_of_rankings_and_of_z(padded, own_home):
    run = run_or_load(AtlasConfig(model=str(padded), k=8))
    logits = logits_of(padded, TOKENS)
    rows = duckdb.sql(
        f"SELECT * FROM {run.sql('neurons')} WHERE layer = 1 AND kind = 'down' AND side = 'top' "
        "ORDER BY neuron"
    ).df()
    best = logits.sort(dim=1, descending=True, stable=True).indices[:, :8]
    np.testing.assert_array_equal(np.stack(rows["ids"]), np.array(TOKENS)[best])
    assert list(rows["tokens"].iloc[0]) == [f"w{i}" for i in rows["ids"].iloc[0]]
    z = (logits.max(1).values - logits.mean(1)) / logits.std(1, correction=0)
    np.testing.assert_allclose(rows["z"], z, rtol=1e-4)
    table = duckdb.sql(f"SELECT id FROM {run.sql('vocabulary')}").df()
    assert table["id"].tolist() == TOKENS
    with pytest.raises(UserError, match="no single token stands for '#205'"):
        search.find(run, "#205")


def test_an_atlas_of_all_ids_has_them(padded, own_home):
    run = run_or_load(AtlasConfig(model=str(padded), k=8, all_ids=True))
    first = search.show(run, "1.down.0")["tokens"].iloc[0][0]
    assert first == f"#{int(logits_of(padded, range(211))[0].argmax())}"


def test_directions_leave_them_out(padded):
    weights, names = Weights(padded), [parse_neuron(f"1.down.{i}") for i in range(48)]
    table = neuron_directions(weights, names).decode(weights, k=3)
    logits = logits_of(padded, TOKENS)
    assert table["top"].str[0].tolist() == [f"w{TOKENS[i]}" for i in logits.argmax(1)]
    z = (logits.mean(1) - logits.min(1).values) / logits.std(1, correction=0)
    np.testing.assert_allclose(table["bottom_z"], z, rtol=1e-4)


def test_k_is_at_most_the_tokens(padded, own_home):
    with pytest.raises(UserError, match="between 2 and the vocabulary's 199, not 200"):
        run_or_load(AtlasConfig(model=str(padded), k=200))
    with pytest.raises(UserError, match="the vocabulary has 199 tokens, not 200"):
        open_readout(Weights(padded)).decode(torch.ones(1, 32), 200)


def test_without_a_tokenizer_every_row_is_read(model_folder):
    weights = Weights(model_folder("llama"))
    rows, ids = open_readout(weights)
    assert torch.equal(ids, torch.arange(211))
    assert torch.equal(rows, weights.W_U())
