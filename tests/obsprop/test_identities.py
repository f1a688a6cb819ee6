"""The identities of observable propagation, in float64, on a random model of every family."""

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.errors import UserError
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.model.weights import Weights
from interp.obsprop.model_weights import Mlp, StackedWeights
from interp.obsprop.norms import Norm
from interp.obsprop.observables import Observable
from interp.obsprop.paths import Node, PathInPrompt, parse_path, path_feature, show
from interp.obsprop.propagate import (
    _boundary,
    direct_effects,
    head_vectors,
    linearise_mlp,
    readout,
    stream_vectors,
)
from interp.obsprop.trace import trace

from .models import MODELS, biased_model, exact, opened
from .reference import path_gradient

EXACT = {"atol": 1e-10, "rtol": 1e-10}
IDS = [5, 17, 33, 8, 120, 64, 9, 77]
PATHS = ["0.2", "1.3", "0.1 > 1.2", "1.mlp", "0.mlp > 1.1", "0.3 > 1.mlp", "0.0 > 0.mlp > 1.2"]


def observable(seed=0):
    weights = torch.randn(5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Observable("random", torch.tensor([3, 7, 11, 150, 42]), weights)


@pytest.fixture(scope="module", params=MODELS)
def model(request, tmp_path_factory):
    """(subject, weights, trace of one prompt)"""
    subject, weights = opened(request.param, tmp_path_factory.mktemp("model") / "m")
    return subject, weights, trace(subject, weights, subject.pad([IDS]))


def test_direct_effects_sum_to_the_observable(model):
    _, weights, found = model
    effects = direct_effects(weights, observable(), found)
    assert effects.total == pytest.approx(float(observable().value(found.logits)), abs=1e-10)
    assert effects.heads.abs().min() > 1e-6, "every head has an effect"


def test_readout_is_the_observable_of_the_logits(model):
    subject, weights, found = model
    end = subject.capture(subject.pad([IDS]), ["final_norm_in"])[Site("final_norm_in")][0, -1]
    got = readout(weights, observable())(end)
    torch.testing.assert_close(got, observable().value(found.logits), **EXACT)


def test_a_heads_direct_effect_is_its_vector_on_what_it_reads(model):
    """m.W_O z of the model's own z, against sum_s a (y.x + bias)."""
    subject, weights, found = model
    m, reads = stream_vectors(weights, observable(), found, found.last)
    sites = [f"{layer}.head_z" for layer in range(weights.spec.n_layers)]
    z = torch.stack(list(subject.capture(subject.pad([IDS]), sites).values()))[:, 0, -1]
    want = torch.einsum("ld,lhdk,lhk->lh", reads, weights.W_O, z)
    torch.testing.assert_close(direct_effects(weights, observable(), found).heads, want, **EXACT)


def test_all_heads_at_once_is_one_head_at_a_time(model):
    _, weights, _ = model
    m = torch.randn(3, weights.spec.d_model, dtype=torch.float64)
    made = head_vectors(weights, m)
    for layer in range(weights.spec.n_layers):
        for head in range(weights.spec.n_heads):
            q = m @ weights.W_O[layer, head]
            kv = head // (weights.spec.n_heads // weights.spec.n_kv_heads)
            torch.testing.assert_close(
                made.vectors[:, layer, head], q @ weights.W_V[layer, kv], **EXACT
            )
            torch.testing.assert_close(
                made.offsets[:, layer, head], q @ weights.b_V[layer, kv], **EXACT
            )


@pytest.mark.parametrize("text", PATHS)
def test_path_vector_is_autograd_with_everything_else_detached(model, text):
    subject, weights, found = model
    if not weights.spec.family.attn_norm:
        pytest.skip("autograd enters at the norms that OLMo 2 does not have")
    path = parse_path(text)
    if any(not a.before(b, weights.spec.parallel) for a, b in itertools.pairwise(path)):
        path = tuple(node for node in path if str(node) != "0.mlp")  # in parallel blocks
    positions = [2]
    for step, node in enumerate(path):
        ends = step == len(path) - 1 and node.head is not None
        positions.append(found.last if ends else positions[-1] + 2 * (node.head is not None))
    prompt = PathInPrompt(found, tuple(positions))
    feature = path_feature(weights, observable(), path, "frozen", prompt, weighted=True)
    norm = weights.norm(path[0].kind, path[0].layer)
    x = found.reads(path[0].kind, path[0].layer, positions[0])
    hf = copy.deepcopy(subject._backend.model)
    gradient = path_gradient(
        hf, weights.spec, torch.tensor(IDS), path, positions, observable().value
    )
    assert gradient.norm() > 1e-8
    torch.testing.assert_close(norm.pull(feature.vector, "frozen", x), gradient, **EXACT)


def test_offset_makes_a_heads_feature_exact_in_value(model):
    """vector.N(x) + offset, times attention, is the head's effect from one source position."""
    _, weights, found = model
    layer, head, source = 1, 2, 3
    prompt = PathInPrompt(found, (source, found.last))
    feature = path_feature(weights, observable(), (Node(layer, head),), "frozen", prompt, True)
    read = weights.norm("attn", layer)(found.streams["attn"][layer, source])
    m, reads = stream_vectors(weights, observable(), found, found.last)
    value = found.values[layer, weights.kv(head), source]
    attention = found.pattern[layer, head, found.last, source]
    want = attention * (reads[layer] @ weights.W_O[layer, head] @ value)
    constants = float(observable().start(weights.W_U) @ weights.final_norm.offset)
    post = weights.post_norm("attn", layer)
    constants += float(m @ post.offset) if post else 0.0
    got = feature.vector @ read + feature.offset - constants
    torch.testing.assert_close(got, want, **EXACT)


@pytest.mark.parametrize("centred", [True, False])
@given(seed=st.integers(0, 10**6), d=st.integers(3, 40))
@settings(max_examples=25, deadline=None)
def test_the_three_norm_modes(centred, seed, d):
    g = torch.Generator().manual_seed(seed)
    gain, offset, x, y = (torch.randn(d, generator=g, dtype=torch.float64) for _ in range(4))
    norm = Norm(gain, offset, 1e-5, centred)
    frozen, true = norm.pull(y, "frozen", x), norm.pull(y, "gradient", x)
    torch.testing.assert_close(frozen @ x + y @ offset, norm(x) @ y, **EXACT)
    leaf = x.clone().requires_grad_(True)
    (want,) = torch.autograd.grad(norm(leaf) @ y, leaf)
    torch.testing.assert_close(true, want, atol=1e-9, rtol=1e-8)
    eps0 = Norm(gain, offset, 0.0, centred)
    assert abs(float(eps0.pull(y, "gradient", x) @ x)) < 1e-9 * float(y.norm() * gain.norm())
    assert torch.equal(norm.pull(y, "ignore"), y)


def test_frozen_and_gradient_directions_nearly_agree():
    """The theorem: cosine about sqrt(1 - 2/d), angle below 2 arccos sqrt(1 - 1/(d-1))."""
    d, g = 256, torch.Generator().manual_seed(0)
    norm = Norm(torch.ones(d, dtype=torch.float64), torch.zeros(d, dtype=torch.float64), 0.0, True)
    cosines = []
    for _ in range(400):
        x, y = (torch.randn(d, generator=g, dtype=torch.float64) for _ in range(2))
        cosines.append(torch.cosine_similarity(y, norm.pull(y, "gradient", x), dim=0))
    found = torch.stack(cosines)
    limit = 2 * torch.arccos(torch.tensor((1 - 1 / (d - 1)) ** 0.5))
    assert float(found.arccos().mean()) < float(limit)
    assert float(found.mean()) == pytest.approx((1 - 2 / d) ** 0.5, abs=1e-3)


class TestMlp:
    @pytest.fixture
    def weights(self, tmp_path):
        return opened("llama", tmp_path / "m")[1]

    def test_is_the_models_own(self, model):
        subject, weights, _ = model
        sites = ["1.mlp_in", "1.mlp_post"]
        read, hidden = subject.capture(subject.pad([IDS]), sites).values()
        torch.testing.assert_close(weights.mlp(1)(read), weights.mlp(1).down(hidden), **EXACT)

    def test_exact_for_a_linear_one(self, tmp_path):
        biased_model("gpt2", activation_function="linear").save_pretrained(tmp_path)
        mlp = Mlp(Weights(tmp_path), 0, torch.float64)
        m, a, b, x = torch.randn(4, 32, dtype=torch.float64)
        made = linearise_mlp(mlp, m, a, b)
        torch.testing.assert_close(made.vector @ x + made.offset, mlp(x) @ m, **EXACT)

    def test_boundary_is_a_zero_where_the_signs_differ(self, weights):
        mlp, g = weights.mlp(1), torch.Generator().manual_seed(3)
        crossings = 0
        for _ in range(30):
            m, a, b = torch.randn(3, 32, generator=g, dtype=torch.float64)
            made, (where, _) = linearise_mlp(mlp, m, a, b), _boundary(mlp, m, a, b)
            at = a + where * (b - a)
            value = float(mlp(at) @ m)
            assert float(made.vector @ at) + made.offset == pytest.approx(value, abs=1e-10)
            if made.crossed:
                crossings += 1
                assert abs(value) < 1e-9
            else:
                assert (mlp(a) @ m) * (mlp(b) @ m) > 0, "a change of sign at the ends is found"
        assert 5 < crossings < 30

    def test_says_so_when_there_is_no_boundary(self, weights):
        mlp, a = weights.mlp(0), torch.ones(32, dtype=torch.float64)
        m = mlp(a)  # m.MLP(a) = |m|^2 > 0, and stays so nearby
        made = linearise_mlp(mlp, m, a, 1.001 * a)
        assert not made.crossed
        assert float(made.vector @ a) + made.offset == pytest.approx(float(m @ m))


def test_gradient_mode_needs_a_prompt_and_ignore_none(tmp_path):
    _, weights = opened("llama", tmp_path / "m")
    free = path_feature(weights, observable(), parse_path("0.1 > 1.2"))
    m0 = observable().start(weights.W_U)
    want = (
        weights.W_V[0, 0].T @ weights.W_O[0, 1].T @ weights.W_V[1, 1].T @ weights.W_O[1, 2].T @ m0
    )
    torch.testing.assert_close(free.vector, want, **EXACT)
    for mode in ("frozen", "gradient"):
        with pytest.raises(UserError, match="needs a prompt"):
            path_feature(weights, observable(), parse_path("1.2"), mode)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1.2 > 0.1", "0.1 cannot read what 1.2 writes"),
        ("5.0", r"this model has no 5\.0: its layers are 0\.\.1, its heads 0\.\.3"),
        ("1.4", "this model has no 1.4"),
        ("1.mlp", "needs a prompt"),
        ("head one", "names no head or MLP"),
    ],
)
def test_paths_that_cannot_be(text, says, tmp_path):
    _, weights = opened("llama", tmp_path / "m")
    with pytest.raises(UserError, match=says):
        path_feature(weights, observable(), parse_path(text))


def test_paths_print_as_they_parse():
    assert show(parse_path("6.6>9.mlp > 13.11")) == "6.6 > 9.mlp > 13.11"


def test_a_trace_needs_patterns(tmp_path):
    model = biased_model("llama")
    model.save_pretrained(tmp_path)
    subject = open_subject(exact(model), dtype=torch.float64)
    with pytest.raises(UserError, match='attention="eager"'):
        trace(subject, StackedWeights(Weights(tmp_path), torch.float64), subject.pad([IDS]))
