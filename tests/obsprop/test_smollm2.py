"""The identities on the real model, in float64."""

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


def test_completeness_and_a_path_is_autograd():
    folder = resolve("smollm2-135m")
    model = exact(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    subject = open_subject(model, attention="eager", dtype=torch.float64, tokenizer=tokenizer)
    weights = StackedWeights(Weights(folder), torch.float64)
    observable = make_observable("subject pronoun", {" she": 1, " he": -1}, weights.stored)
    prompt = trace(subject, weights, PROMPT)

    value = float(observable.value(prompt.logits))
    assert value > 1, "the model says 'she' of Anna"
    assert direct_effects(weights, observable, prompt).total == pytest.approx(value, abs=1e-10)

    path, positions = parse_path("3.mlp > 17.2 > 28.8"), (2, 2, 5, prompt.last)
    where = PathInPrompt(prompt, positions)
    feature = path_feature(weights, observable, path, "frozen", where, weighted=True)
    x = where.reads(path[0].kind, path[0].layer, 0)
    got = weights.norm(path[0].kind, path[0].layer).pull(feature.vector, "frozen", x)
    # last, as it replaces modules of the model
    want = path_gradient(model, weights.spec, prompt.ids, path, positions, observable.value)
    assert want.norm() > 0
    assert (got - want).norm() < 1e-10 * want.norm()  # relative: some attention weights are tiny
