"""On SmolLM2 and 2,048 tokens, what `directions score` reads is each analysis' own score."""

import numpy as np
import pytest
import torch

from interp.data import FOLDER
from interp.directions import Directions
from interp.directions.inspect import top_examples
from interp.directions.sources import latent_directions, neuron_directions
from interp.model.neuron import parse_neuron
from interp.model.subject import open_subject
from interp.obsprop.model_weights import StackedWeights
from interp.obsprop.observables import make_observable
from interp.obsprop.paths import parse_path, path_feature
from interp.obsprop.scoring import as_directions
from interp.obsprop.task_files import read_task
from interp.othello.board_labels import read_activations
from interp.saes import open_sae
from interp.text.corpus import read_corpus, token_rows
from interp.text.stream import stream

pytestmark = pytest.mark.slow
SAE = FOLDER / "darkmatter" / "smollm2-135m-14" / "saes" / "w3072-k64"


@pytest.fixture(scope="module")
def subject():
    return open_subject("smollm2-135m")


@pytest.fixture(scope="module")
def rows(subject):
    return list(token_rows(read_corpus(None), subject.prompting, 128, 2048))


@pytest.fixture(scope="module")
def plain(rows):
    """transformers' own pass: hidden states [layer][2048, d], and each layer's down_proj input."""
    from transformers import AutoModelForCausalLM

    from interp.model.catalog import resolve

    model = AutoModelForCausalLM.from_pretrained(resolve("smollm2-135m"), dtype=torch.float32)
    posts = {}
    for i, layer in enumerate(model.model.layers):
        layer.mlp.down_proj.register_forward_pre_hook(
            lambda _, args, i=i: posts.update({i: args[0].flatten(0, 1)})
        )
    with torch.no_grad():
        out = model(torch.tensor(rows), output_hidden_states=True)
    return model, [x.flatten(0, 1) for x in out.hidden_states], posts


def feature(subject):
    weights = StackedWeights(subject.weights)
    task = read_task("subject-pronoun")
    observable = make_observable(task.name, task.observable, subject.weights)
    return path_feature(weights, observable, parse_path("26.2")), weights


def own_scores(kind, subject, plain):
    """Directions, and their analysis' scores [2048, n] from plain transformers in float64."""
    model, hidden, posts = plain
    if kind == "feature":
        found, weights = feature(subject)
        x = hidden[26].double()
        layer = model.model.layers[26]
        eps = model.config.rms_norm_eps
        normed = x / (x.square().mean(-1, keepdim=True) + eps).sqrt()
        normed = normed * layer.input_layernorm.weight.double()
        v_proj, o_proj = (getattr(layer.self_attn, f"{p}_proj").weight.double() for p in "vo")
        value = v_proj.view(3, 64, -1)[0]  # head 2 of 9 has the first of 3 key-value heads
        reads = model.lm_head.weight.double()  # the final norm is ignored where no prompt is given
        tokens = read_task("subject-pronoun").observable
        ids = {t: subject.prompting.plain(t)[0] for t in tokens}
        m = sum(weight * reads[ids[t]] for t, weight in tokens.items())
        want = normed @ (value.T @ (o_proj[:, 128:192].T @ m))
        return as_directions(weights, [found], "test"), want[:, None]
    if kind == "latent":
        which = [12, 700, 2000]
        z = open_sae(SAE).inner.encode(hidden[15]).to_dense()
        return latent_directions(str(SAE), which), z[:, which].detach().double()
    if kind == "neuron":
        return neuron_directions(subject.weights, [parse_neuron("29.down.808")]), posts[29][
            :, [808]
        ].double()
    found = Directions.load(FOLDER / "knob" / "smollm2-135m" / "knob")
    return found, hidden[21].double() @ found.vectors.double().T


@pytest.mark.parametrize("kind", ["feature", "latent", "neuron", "knob"])
def test_it_is_the_analysis_own_score(kind, subject, rows, plain):
    found, want = own_scores(kind, subject, plain)
    activations = torch.cat([a[found.read_at] for a in stream(subject, rows, [found.read_at])])
    apart = (found.scores(activations) - want).abs().amax(0) / want.std(0)
    assert apart.max() < 1e-5
    table = top_examples(subject, rows, found, keep=5)
    inner = want.view(16, 128, -1)[:, 1:]
    for n, name in enumerate(found.names):
        best = inner[..., n].flatten().topk(5).values.tolist()
        own = table[table["name"] == name]
        assert own["score"].tolist() == pytest.approx(best, rel=1e-5)
    assert table["position"].min() > 0


def test_a_probes_class_is_read_with_its_intercept(tmp_path):
    """1,000 positions of OthelloGPT: the logits of the probe itself."""
    from interp.directions.provenance import Provenance
    from interp.model.site import Site
    from interp.othello.games import random_games
    from interp.othello.layer import class_directions

    subject, site = open_subject("othello-gpt"), Site("resid_post", 2)
    games = random_games(40, 1)
    x = read_activations(subject, games, [site], np.ones((40, 59), bool))[site]
    coef, intercept = torch.randn(64, 3, x.shape[1]), torch.randn(64, 3) * 5
    class_directions(site, coef, Provenance("test"), intercept).save(tmp_path)
    want = torch.einsum("nd,tcd->nct", x.double(), coef.double()) + intercept.double().T
    got = Directions.load(tmp_path).scores(x).view(-1, 3, 64)
    assert float((got - want).abs().max() / want.std()) < 1e-5
