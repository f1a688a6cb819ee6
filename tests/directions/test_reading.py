"""A direction is scored as its own analysis scores it: its norm, its constant."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from interp.directions import Directions
from interp.directions.encoder import Encoder
from interp.directions.inspect import steered, top_examples
from interp.directions.provenance import Provenance
from interp.directions.reading import Coordinate, Product, Scale, Unread
from interp.directions.sources import neuron_directions
from interp.errors import UserError
from interp.model.neuron import parse_neuron
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.model.weights import Weights

from .made import of_reading


def test_the_identity_of_a_set_is_another_wherever_scores_are_others(tmp_path, own_home):
    """And the same for the same scores, however they are held."""
    own = of_reading(Product(), (0.5, -2.0))
    half = replace(own, vectors=own.vectors.bfloat16())
    names = replace(own, index=own.index.assign(name=["a", "c"]))
    at = Coordinate("0.mlp_post")
    others = [
        of_reading(Product()),
        of_reading(Product(Scale(True, 1e-5)), (0.5, -2.0)),
        replace(own, site=Site("resid_post", 1)),
        *(half, names),
        of_reading(at, unit=[3, 4]),
        of_reading(at, unit=[3, 5]),
        own.pick([1, 0]),
        own.pick([0]),
    ]
    assert len({own.identity, *(each.identity for each in others)}) == 1 + len(others)
    assert replace(half, vectors=half.vectors.float()).identity == half.identity
    assert replace(own, index=own.index.assign(note="x")).identity == own.identity
    assert replace(own, provenance=Provenance("someone")).identity == own.identity
    unsaid = replace(own, index=own.index.drop(columns="constant"))
    assert unsaid.identity == of_reading(Product()).identity
    own.save(tmp_path / "set")
    assert Directions.load(tmp_path / "set").identity == own.identity


@pytest.mark.parametrize("centred", [True, False])
def test_behind_a_norm_with_its_own_scale_plus_a_constant(centred):
    x = torch.randn(3, 7, 32, generator=torch.Generator().manual_seed(0)) * 50 + 3
    found = of_reading(Product(Scale(centred, 1e-5)), (0.5, -2.0))
    exact = x.numpy().astype(np.float64)
    exact = exact - exact.mean(-1, keepdims=True) if centred else exact
    normed = exact / np.sqrt((exact**2).mean(-1, keepdims=True) + 1e-5)
    want = normed @ found.vectors.double().numpy().T + [0.5, -2.0]
    np.testing.assert_allclose(found.scores(x), want, rtol=1e-5, atol=1e-5)
    assert found.scores(x).dtype == torch.float64


@pytest.mark.parametrize("family", ["llama", "gpt2", "olmo2"])
def test_examples_are_those_of_the_score(family, model_folder, own_home):
    """The mean and the best places, from transformers' own hidden states in float64."""
    from transformers import AutoModelForCausalLM

    folder = model_folder(family)
    rows = torch.randint(1, 200, (4, 12), generator=torch.Generator().manual_seed(2)).tolist()
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    x = plain(torch.tensor(rows), output_hidden_states=True).hidden_states[1].detach()
    found = of_reading(Product(Scale(False, 1e-6)), (1.0, 0.0))
    scores = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) @ found.vectors.double().T
    scores = scores + torch.tensor([1.0, 0.0])
    table = top_examples(open_subject(folder), rows, found, keep=3)
    for n, own in enumerate(table.groupby("name", sort=False)):
        inner = scores[:, 1:, n]
        best = inner.flatten().topk(3)
        assert own[1]["score"].tolist() == pytest.approx(best.values.tolist(), rel=1e-5)
        places = [(i // 11, i % 11 + 1) for i in best.indices.tolist()]
        assert list(zip(own[1]["row"], own[1]["position"], strict=True)) == places
        assert own[1]["mean"].iloc[0] == pytest.approx(float(inner.mean()), rel=1e-4)


def test_a_bias_counts(model_folder, own_home):
    """GPT-2's up projection has one: the score is what the neuron gets."""
    folder = model_folder("gpt2")
    subject, site = open_subject(folder), Site("mlp_up", 1)
    found = neuron_directions(Weights(folder), [parse_neuron("1.up.7")])
    got = subject.capture(subject.pad([[3, 1, 4]]), [found.site, site])
    torch.testing.assert_close(found.scores(got[found.site])[..., 0].float(), got[site][..., 7])


def test_an_experts_neuron_has_no_score(model_folder, own_home):
    weights = Weights(model_folder("mixtral"))
    found = neuron_directions(weights, [parse_neuron("1.e0.down.3")])
    with pytest.raises(UserError, match="no score: the activation of 1.e0.down.3 is no site"):
        found.scores(torch.ones(1, 32))
    with pytest.raises(UserError, match="no sum over parts"):
        found.reading.linear(torch.ones(1, 32), torch.ones(1, 32))


READINGS = {
    "product": Product(),
    "norm": Product(Scale(True, 1e-5)),
    "neuron": Coordinate("1.mlp_post"),
    "latent": Encoder("somewhere", "abc"),
    "none": Unread("it was never read"),
}


@pytest.mark.parametrize("kind", READINGS)
def test_a_reading_is_saved_with_its_directions(kind, tmp_path):
    found = of_reading(READINGS[kind], unit=[1, 2], latent=[3, 4])
    found.save(tmp_path)
    assert Directions.load(tmp_path).reading == found.reading
    assert Directions.load(tmp_path).pick([1]).reading == found.reading


def test_what_a_reading_needs_of_each_must_be_there():
    with pytest.raises(ValueError, match="the index of directions lacks latent"):
        of_reading(Encoder("somewhere"))


class Halves:
    """Stands for an SaeSplit: any three parts of x."""

    def check(self, site, model, anyway):
        assert (site, model, anyway) == ("0.resid_post", "", False)

    def __call__(self, x):
        part = x.double() * torch.arange(32) / 40
        return part, (x.double() - part) * 0.25, (x.double() - part) * 0.75


def test_parts_of_a_score_behind_a_norm_sum_to_it():
    """Each part is divided by the scale of the whole; a part's own scale would not do."""
    x = torch.randn(200, 32, generator=torch.Generator().manual_seed(0)) * 4 + 1
    found = of_reading(Product(Scale(True, 1e-5)), (7.0, 7.0))
    parts = found.split_scores(Halves(), x)
    torch.testing.assert_close(parts.sum(0) + 7.0, found.scores(x), atol=1e-5, rtol=1e-5)
    shares = found.split(Halves(), x)[["reconstruction", "linear", "nonlinear"]].sum(axis=1)
    assert shares.tolist() == pytest.approx([1.0, 1.0])
    of_latents = of_reading(Encoder("somewhere"), latent=[1, 2])
    with pytest.raises(UserError, match="no sum over parts of an activation"):
        of_latents.split(Halves(), x)


def test_coupling_needs_the_same_reading():
    plain, normed = of_reading(Product()), of_reading(Product(Scale(False, 1e-5)))
    assert normed.coupling(normed).diagonal().tolist() == pytest.approx([1.0, 1.0])
    with pytest.raises(UserError, match=r"v\.x at 0\.resid_post and v\.x/rms at 0\.resid_post"):
        plain.coupling(normed)
    later = Directions(Site("resid_post", 1), plain.vectors, plain.index)
    with pytest.raises(UserError, match="have no coupling: they read different things"):
        plain.coupling(later)


def test_steering_says_what_it_does_to_the_score(dog_model, own_home):
    subject = open_subject(dog_model)
    found = of_reading(Product(), (1.0, 0.0))
    table = steered(subject, subject.tokens("w1 w2"), found, 0, (2.0,), tokens=1)
    moved = 2.0 * float(found.vectors[0].double().square().sum())
    assert table["score"].diff().iloc[1] == pytest.approx(moved, rel=1e-4)
