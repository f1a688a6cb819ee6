"""Scores of heads on planted patterns, and the copying score against the whole matrix."""

import pytest
import torch

from interp.circuits import figures_heads
from interp.circuits.head import Head
from interp.circuits.ov import OV
from interp.circuits.role_tables import SCORES, Copying, copy_losses, scores
from interp.circuits.roles import RolesConfig
from interp.errors import UserError
from interp.model.weights import open_weights
from interp.runs.study import run_or_load

LENGTH = 4


def pattern(start, key):
    """All attention of each query at one key."""
    size = start + 2 * LENGTH
    found = torch.zeros(size, size)
    for query in range(size):
        found[query, key(query) if 0 <= key(query) <= query else 0] = 1
    return found


@pytest.mark.parametrize("start", [0, 1])
def test_planted_patterns(start):
    keys = {
        "previous": lambda q: q - 1,
        "first": lambda q: 0,
        "own": lambda q: q,
        "duplicate": lambda q: q - LENGTH,
        "induction": lambda q: q - LENGTH + 1,
    }
    heads = torch.stack([pattern(start, key) for key in keys.values()])
    found = scores(heads, LENGTH)
    assert found.diagonal().tolist() == [1.0] * len(SCORES)
    off = found - torch.diag(found.diagonal())
    assert off[:, 3:].abs().max() <= 0.25 * (1 - start), "only t_1 itself, at position 0"


def test_the_costs_of_the_copies():
    ids = torch.tensor([7, 1, 2, 3, 1, 2, 3])
    logits = torch.zeros(7, 9)
    for at in (4, 5):  # it knows the second copy, but for its first token
        logits[at, ids[at + 1]] = 50.0
    first, second = copy_losses(logits, ids, 3).tolist()
    assert first == pytest.approx(float(torch.tensor(9.0).log()))
    assert second == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "olmo2"])
def test_copying_is_of_the_eigenvalues_of_the_whole_matrix(family, model_folder):
    weights = open_weights(str(model_folder(family)))
    head = Head(1, 2)
    whole = OV.of(weights, head)(weights.W_E()) @ weights.W_U().double().T
    values = torch.linalg.eigvals(whole)
    expected = float(values.real.sum() / values.abs().sum())
    assert Copying(weights)(head) == pytest.approx(expected, abs=1e-4)


def test_a_run(dog_model, own_home):
    run = run_or_load(RolesConfig(str(dog_model), length=5, sequences=2))
    heads = run.table("heads")
    assert heads[["layer", "head"]].to_numpy().tolist() == [
        [layer, head] for layer in range(2) for head in range(4)
    ]
    assert heads[list(SCORES)].to_numpy().min() > 0
    assert heads[["previous", "first", "own"]].sum(axis=1).max() <= 1
    for score in (*SCORES, "copying"):
        assert figures_heads.roles(heads, score).data[0].z.shape == (2, 4)
    with pytest.raises(UserError, match="211 tokens: give a shorter"):
        run_or_load(RolesConfig(str(dog_model), length=300, sequences=1))
    with pytest.raises(UserError, match="--length"):
        run_or_load(RolesConfig(str(dog_model), length=1))
