"""The paper's published figures, on its own model: runs where GPT-Neo-1.3B is in the hub's cache.

Dunefsky & Cohan, GPT-Neo-1.3B: lengths of the subject and object pronouns' vectors without norm
handling, and the coupling coefficients of one with the other.
"""

import pandas as pd
import pytest
import torch
from huggingface_hub import try_to_load_from_cache

from interp.directions import Directions
from interp.model.weights import open_weights
from interp.obsprop.model_weights import StackedWeights
from interp.obsprop.observables import make_observable
from interp.obsprop.paths import parse_path, path_feature
from interp.obsprop.propagate import head_norms

MODEL = "EleutherAI/gpt-neo-1.3B"
SUBJECT = {"18.11": 72.2168, "17.14": 70.7219, "13.11": 45.9200, "15.13": 39.4049}
OBJECT = [69.2137, 68.9342, 51.8211, 44.0450]
"""Of the paper's four heads of the object pronoun, in the order of their lengths."""
COUPLING = {"17.14": 0.671, "15.13": 0.773, "13.11": 0.736}

pytestmark = pytest.mark.skipif(
    not isinstance(try_to_load_from_cache(MODEL, "model.safetensors"), str),
    reason=f"{MODEL} is not in the local hub cache",
)


@pytest.fixture(scope="module")
def weights():
    return StackedWeights(open_weights(MODEL))


def observable(weights, words):
    return make_observable("pronoun", words, weights.stored)


def test_lengths_of_the_subject_vectors(weights):
    norms = head_norms(weights, observable(weights, {" she": 1, " he": -1})).set_index("name")[
        "norm"
    ]
    for head, length in SUBJECT.items():
        assert norms[head] == pytest.approx(length, rel=1e-3)


def test_lengths_of_the_object_vectors(weights):
    norms = head_norms(weights, observable(weights, {" her": 1, " him": -1}))["norm"].to_numpy()
    for length in OBJECT:
        assert abs(norms - length).min() < 1e-3 * length


def test_coupling_of_subject_with_object(weights):
    subject = observable(weights, {" she": 1, " he": -1})
    other = observable(weights, {" her": 1, " him": -1})
    for head, coefficient in COUPLING.items():
        features = [path_feature(weights, each, parse_path(head)) for each in (subject, other)]
        vectors = torch.stack([feature.vector for feature in features])  # behind the norm, bare
        pair = Directions(features[0].site, vectors, pd.DataFrame({"name": ["subject", "object"]}))
        assert float(pair.coupling(pair)[0, 1]) == pytest.approx(coefficient, abs=2e-3)
