"""What nodes write, in words: against products with the model's own matrices in float64."""

import pytest
import torch

from interp.circuits.latents import splice
from interp.circuits.network import Node, open_network
from interp.circuits.target import open_target
from interp.circuits.written import said
from interp.lens.lens import Lens
from interp.model.subject import open_subject
from interp.model.weights import Weights
from interp.saes import wrap

from .test_latents import TARGET, made


@pytest.fixture(scope="module")
def opened(dog_model):
    subject = open_subject(dog_model, dtype=torch.float64, attention="eager")
    return subject, Weights(dog_model)


def first(weights, vector):
    """The token whose row of the unembedding likes a vector most."""
    token = int((weights.W_U().double() @ vector.double()).argmax())
    return "dog" if token == 123 else f"w{token}"


def words(opened, kind, other=None, lens="raw", hook="", chosen=10, maps=None):
    subject, weights = opened
    batch = subject.pad([list(range(3, 8))])
    spliced = []
    if kind == "latent":
        inner = made("standard")
        inner.cfg.metadata.hook_name = hook
        spliced = [splice(subject, wrap(inner), batch, other, "it")]
    network = open_network(subject, batch, TARGET, "half", spliced, other)
    number = next(n for n, part in enumerate(network.parts) if part.kind == kind)
    nodes = [
        Node(number, tuple(at))
        for at in (network.attributions[number] == network.attributions[number]).nonzero().tolist()
    ][-chosen:]
    return network, nodes, said(network, nodes, weights, Lens(weights, lens, maps or {}), 3)


def test_an_sae_of_heads_writes_through_their_outputs(opened):
    network, nodes, told = words(opened, "latent", hook="blocks.1.attn.hook_z")
    _, weights = opened
    part = network.parts[nodes[0].part]
    W_O = weights.W_O(1).double().permute(0, 2, 1).flatten(0, 1)
    for node, each in zip(nodes, told, strict=True):
        written = part.activation(node.at) * part.rows[node.at].double() @ W_O
        assert each.top[0] == first(weights, written)


def test_an_sae_before_a_layer_is_read_by_the_layer_before(opened):
    _, weights = opened
    J = torch.randn(32, 32, generator=torch.Generator().manual_seed(2))
    network, nodes, told = words(
        opened, "latent", hook="blocks.1.hook_resid_pre", lens="jacobian", maps={0: J}
    )
    part = network.parts[nodes[0].part]
    gain = weights.gain("final").double()
    for node, each in zip(nodes, told, strict=True):
        written = part.activation(node.at) * part.rows[node.at].double()
        assert each.top[0] == first(weights, (J.double() @ written) * gain)


def test_with_a_counterfactual_it_is_what_is_written_more_than_there(opened):
    subject, weights = opened
    network, nodes, told = words(opened, "neuron", other=subject.pad([[3, 20, 21, 22, 23]]))
    part, there = network.parts[nodes[0].part], network.changed[nodes[0].part]
    rows = weights.in_stream("down", part.layer).double()
    for node, each in zip(nodes, told, strict=True):
        more = part.activation(node.at) - there.activation(node.at)
        assert each.top[0] == first(weights, more * rows[node.at[1]])


def test_what_writes_nothing_says_nothing(opened):
    subject, weights = opened
    other = subject.pad([[3, 20, 21, 22, 23]])
    network = open_network(subject, subject.pad([list(range(3, 8))]), TARGET, "half", other=other)
    number = next(n for n, part in enumerate(network.parts) if part.kind == "neuron")
    (each,) = said(network, [Node(number, (0, 5))], weights, Lens(weights, "raw"), 3)
    assert each.top == each.bottom == []  # the first token is the same in both


def test_the_likeliest_token_is_kept_as_an_id(opened):
    """Its text may be another token's: many pieces of a character look alike."""
    subject, _ = opened
    target = open_target(subject, 7)
    assert float(target.weights[7]) == pytest.approx(1 - 1 / subject.spec.d_vocab)
    assert target.name == "'w7' - mean"
