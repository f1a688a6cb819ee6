"""Path search against its twins: edits of the model itself, derivatives, exhaustive search."""

import pytest
import torch

from interp.errors import UserError
from interp.model.edits import add
from interp.model.site import Site
from interp.obsprop.paths import Node, PathInPrompt, parse_path, path_feature, show
from interp.obsprop.search import Pair, carried, linearisation, search_paths
from interp.obsprop.trace import trace, trace_pair

from .models import MODELS, opened
from .test_identities import EXACT, IDS, observable

OTHER = [5, 17, 90, 8, 120, 64, 9, 77]


@pytest.fixture(scope="module", params=MODELS)
def model(request, tmp_path_factory):
    subject, weights = opened(request.param, tmp_path_factory.mktemp("model") / "m")
    return (
        subject,
        weights,
        Pair(*(trace(subject, weights, subject.pad([ids])) for ids in (IDS, OTHER))),
    )


def test_the_empty_path_is_an_edit_at_the_end_of_the_stream(model):
    subject, weights, pair = model
    delta = torch.randn(weights.spec.d_model, dtype=torch.float64)
    got = carried(weights, observable(), pair.clean, (), (pair.clean.last,), delta[None])
    batch = subject.pad([IDS])
    with subject.edited(add(Site("resid_post", weights.spec.n_layers - 1), delta, where="last")):
        # at the site `logits`: a soft cap is no part of the observable
        after = subject.capture(batch, ["logits"])[Site("logits")][0, -1]
    change = observable().value(after) - observable().value(pair.clean.logits)
    torch.testing.assert_close(got[0], change, **EXACT)


@pytest.mark.parametrize("text", ["1.3", "0.1 > 1.2", "1.mlp", "0.3 > 1.mlp"])
def test_a_small_message_moves_the_observable_by_the_gradient_vector(model, text):
    """`carried` is nonlinear; its derivative at zero is the path's vector with true gradients."""
    _, weights, pair = model
    path = parse_path(text)
    positions = (2, 4, pair.clean.last) if len(path) == 2 else (2, pair.clean.last)
    if path[-1].head is None:
        positions = (*(2 for _ in path[1:]), pair.clean.last, pair.clean.last)
    prompt = PathInPrompt(pair.clean, positions)
    feature = path_feature(weights, observable(), path, "gradient", prompt, weighted=True)
    x = pair.clean.reads(path[0].kind, path[0].layer, positions[0])
    want = weights.norm(path[0].kind, path[0].layer).pull(feature.vector, "gradient", x)
    leaf = torch.zeros(1, weights.spec.d_model, dtype=torch.float64, requires_grad=True)
    change = carried(weights, observable(), pair.clean, path, positions, leaf)
    (got,) = torch.autograd.grad(change[0], leaf)
    assert want.norm() > 1e-8
    torch.testing.assert_close(got[0], want, **EXACT)


def test_wide_enough_it_is_exhaustive(model):
    """Every one- and two-part path, each with its message worked out by itself."""
    _, weights, pair = model
    found = search_paths(weights, observable(), pair, width=500, depth=2, keep=5000, screen=5000)
    effects = {(path.path, path.positions): path.effect for path in found}
    last, spec = pair.clean.last, weights.spec
    heads = [Node(layer, head) for layer in range(2) for head in range(4)]
    sources = [(head, source) for head in heads for source in range(last + 1)]
    assert sum(len(path) == 1 for path, _ in effects) == len(sources) + 2
    for node, source in (sources[3], sources[20], sources[-1]):
        message = _message(weights, pair, node, source, last)
        want = -carried(weights, observable(), pair.clean, (), (last,), message[None])
        assert effects[(node,), (source, last)] == pytest.approx(float(want[0]), abs=1e-10)
    late, early = Node(1, 2), Node(0, 1)
    message = _message(weights, pair, early, 2, 4)
    want = -carried(weights, observable(), pair.clean, (late,), (4, last), message[None])
    assert effects[(early, late), (2, 4, last)] == pytest.approx(float(want[0]), abs=1e-10)
    if not spec.parallel:
        assert ((Node(1, 3), Node(1, None)), (2, last, last)) in effects
    assert [abs(p.effect) for p in found] == sorted((abs(p.effect) for p in found), reverse=True)


def _message(weights, pair, node, source, target):
    """Counterfactual minus clean, of one head from one source."""
    both = []
    for found in (pair.other, pair.clean):
        z = (
            found.pattern[node.layer, node.head, target, source]
            * found.values[node.layer, weights.kv(node.head), source]
        )
        both.append(weights.W_O[node.layer, node.head] @ z)
    message = both[0] - both[1]
    post = weights.post_norm("attn", node.layer)
    if post is not None:
        message = (
            message * post.gain / post.scale(pair.clean.reads("attn_post", node.layer, target))
        )
    return message


def test_screening_keeps_what_is_strong(model):
    _, weights, pair = model
    every, few = (
        [path[:2] for path in search_paths(weights, observable(), pair, depth=1, screen=screen)]
        for screen in (5000, 20)
    )
    assert len(few) == 20
    assert few[0] == every[0]
    assert set(few) < set(every)


def test_linearisation_compares_the_vector_with_the_path(model):
    _, weights, pair = model
    found = search_paths(weights, observable(), pair, depth=1)[0]
    predicted, actual = linearisation(weights, observable(), pair, found)
    node, source = found.path[0], found.positions[0]
    x, other = (one.reads(node.kind, node.layer, source) for one in pair)
    back = -carried(
        weights, observable(), pair.clean, found.path, found.positions, (other - x)[None]
    )
    assert actual == pytest.approx(float(back[0]), abs=1e-12)
    if node.head is not None:
        norm = weights.norm("attn", node.layer)
        prompt = PathInPrompt(pair.clean, found.positions)
        vector = path_feature(weights, observable(), found.path, "frozen", prompt, True).vector
        assert predicted == pytest.approx(float(vector @ (norm(x) - norm(other))), abs=1e-12)
    nothing = linearisation(weights, observable(), Pair(pair.clean, pair.clean), found)
    assert nothing == (0, 0)


def test_pairs_must_line_up(tmp_path):
    subject, weights = opened("llama", tmp_path / "m")
    batches = [subject.pad([IDS]), subject.pad([IDS[:5]])]
    with pytest.raises(UserError, match="has 8 and 5 tokens"):
        trace_pair(subject, weights, (batches[0], batches[1]), "task")
    with pytest.raises(UserError, match="are the same"):
        trace_pair(subject, weights, (batches[0], batches[0]), "task")


def test_show_names_parts_from_the_input_side():
    assert show((Node(0, 1), Node(1, None))) == "0.1 > 1.mlp"
