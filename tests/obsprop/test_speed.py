"""Scoring a corpus costs little more than the forward pass it needs."""

import pytest

from interp.errors import UserError
from interp.model.subject import open_subject
from interp.obsprop.model_weights import StackedWeights
from interp.obsprop.observables import Observable
from interp.obsprop.paths import parse_path, path_feature
from interp.obsprop.scoring import as_directions
from interp.obsprop.speed import measure, overhead


def directions_of(folder, path):
    import torch

    subject = open_subject(folder)
    observable = Observable("any", torch.tensor([0, 1]), torch.tensor([1.0, -1.0]))
    weights = StackedWeights(subject.weights)
    return subject, as_directions(
        weights, [path_feature(weights, observable, parse_path(path))], "test"
    )


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gpt_neox"])
def test_it_is_measured_on_any_model(family, model_folder, own_home):
    folder = model_folder(family)
    subject, directions = directions_of(folder, "1.2")
    rows = [[1, 2, 3, 4]] * 6
    found = overhead(subject, str(folder), directions, rows, batch_size=4, repeats=2)
    assert found["tokens"] == 24
    assert found["layer"] == 1
    assert found["ratio"] > 0


def test_nothing_comes_before_the_first_layer(model_folder, own_home):
    folder = model_folder("llama")
    subject, directions = directions_of(folder, "0.2")
    with pytest.raises(UserError, match="no whole layer before 0.resid_pre"):
        overhead(subject, str(folder), directions, [[1, 2]])


@pytest.mark.slow
def test_within_a_fifth_of_the_bare_forward_pass():
    """In CPU time, so that it holds on a busy machine too."""
    assert measure("smollm2-135m", "26.2", 4096)["ratio_cpu"] < 1.2
