"""The identities on the real model, in float64."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from interp.model.catalog import resolve
from interp.model.subject import open_subject
from interp.model.weights import Weights
from interp.obsprop.model_weights import StackedWeights
from interp.obsprop.observables import make_observable
from interp.obsprop.paths import PathInPrompt, parse_path, path_feature
from interp.obsprop.propagate import direct_effects
from interp.obsprop.trace import trace

from .models import exact
from .reference import path_gradient

PROMPT = "So, Anna really is a great friend, isn't"


@pytest.fixture(scope="module")
def real():
    folder = resolve("smollm2-135m")
    model = exact(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    subject = open_subject(model, attention="eager", dtype=torch.float64, tokenizer=tokenizer)
    weights = StackedWeights(Weights(folder), torch.float64)
    observable = make_observable("subject pronoun", {" she": 1, " he": -1}, weights.stored)
    return subject, weights, observable, trace(subject, weights, PROMPT)


def test_completeness(real):
    _, weights, observable, found = real
    value = float(observable.value(found.logits))
    assert value > 1, "the model says 'she' of Anna"
    assert direct_effects(weights, observable, found).total == pytest.approx(value, abs=1e-10)


@pytest.mark.parametrize(
    ("text", "positions"),
    [("22.4", (2, -1)), ("11.3 > 25.mlp", (2, -1, -1)), ("3.mlp > 17.2 > 28.8", (2, 2, 5, -1))],
)
def test_path_is_autograd(real, text, positions):
    subject, weights, observable, found = real
    path, positions = parse_path(text), [p % len(found.ids) for p in positions]
    prompt = PathInPrompt(found, tuple(positions))
    feature = path_feature(weights, observable, path, "frozen", prompt, weighted=True)
    x = found.reads(path[0].kind, path[0].layer, positions[0])
    got = weights.norm(path[0].kind, path[0].layer).pull(feature.vector, "frozen", x)
    hf = copy.deepcopy(subject._backend.model)
    want = path_gradient(hf, weights.spec, found.ids, path, positions, observable.value)
    assert want.norm() > 0
    assert (got - want).norm() < 1e-10 * want.norm()  # relative: some attention weights are tiny
