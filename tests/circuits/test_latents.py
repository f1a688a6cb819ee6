"""Latents as nodes: nothing changes, and what flows through them adds up."""

import pytest
import torch
from sae_lens import (
    JumpReLUSAE,
    JumpReLUSAEConfig,
    StandardSAE,
    StandardSAEConfig,
    TopKSAE,
    TopKSAEConfig,
    Transcoder,
    TranscoderConfig,
)

from interp.circuits.latents import splice
from interp.circuits.network import Node, open_network
from interp.circuits.target import Target
from interp.errors import UserError
from interp.model.edits import Edit
from interp.model.subject import open_subject
from interp.saes import wrap

TARGET = Target("7 - 9", torch.tensor([7, 9]), torch.tensor([1.0, -1.0]))
SIZES = {"d_in": 32, "d_sae": 80, "dtype": "float64"}
KINDS = {
    "standard": lambda: StandardSAE(StandardSAEConfig(**SIZES)),
    "topk": lambda: TopKSAE(TopKSAEConfig(k=9, **SIZES)),
    "jumprelu": lambda: JumpReLUSAE(JumpReLUSAEConfig(**SIZES)),
    "heads": lambda: StandardSAE(StandardSAEConfig(**SIZES)),
    "transcoder": lambda: Transcoder(
        TranscoderConfig(d_out=32, apply_b_dec_to_input=False, **SIZES)
    ),
}
HOOKS = {"transcoder": "blocks.0.mlp.hook_in", "heads": "blocks.1.attn.hook_z"}


def made(kind):
    torch.manual_seed(1)
    inner = KINDS[kind]()
    with torch.no_grad():
        for name, parameter in inner.named_parameters():
            if name == "threshold":
                parameter.fill_(0.3)
            else:
                parameter.add_(0.2 * torch.randn_like(parameter))
    inner.cfg.metadata.hook_name = HOOKS.get(kind, "blocks.0.hook_resid_post")
    if kind == "transcoder":
        inner.cfg.metadata.hook_name_out = "blocks.0.hook_mlp_out"
    return inner


@pytest.fixture(scope="module")
def subject(model_folder):
    return open_subject(model_folder("llama"), dtype=torch.float64, attention="eager")


def networks(subject, kind, other=None):
    batch = subject.pad([list(range(3, 8))])
    spliced = splice(subject, wrap(made(kind)), batch, other, kind)
    return spliced, batch, open_network(subject, batch, TARGET, "half", [spliced])


@pytest.mark.parametrize("kind", KINDS)
def test_splicing_changes_no_value_and_every_sum_holds(subject, kind):
    spliced, batch, network = networks(subject, kind)
    value = float(TARGET.value(subject.logits(batch)))
    assert network.value == pytest.approx(value, abs=1e-9)
    assert max(abs(cut - value) for cut in network.cuts.values()) < 1e-9
    number = next(n for n, part in enumerate(network.parts) if part.kind == "latent")
    part = network.parts[number]
    assert 0 not in part.positions
    assert len(part.values) > 20
    nodes = [
        Node(n, (index,) if other.kind != "neuron" else (4, index))
        for n, other in enumerate(network.parts)
        if other.kind == "latent" or (other.kind == "neuron" and other.layer == 1)
        for index in range(12)
    ]
    for node, shares, _ in network.flows(nodes):
        into = sum(float(each.sum()) for each in shares)
        assert into == pytest.approx(float(network.attributions[node.part][node.at]), abs=1e-9)


def test_a_latents_row_is_what_holding_it_would_do(subject):
    """The target's change to first order when the latent alone writes more: for the frozen network
    exactly, so for a piecewise linear reading of a change of 1e-6."""
    spliced, batch, network = networks(subject, "standard")
    number = next(n for n, part in enumerate(network.parts) if part.kind == "latent")
    part, row = network.parts[number], network.rows[number]
    at = int(row.abs().argmax())
    frozen = network.frozen.system
    site, position = spliced.gives, part.position((at,))
    more = torch.zeros(1, 5, 32, dtype=torch.float64)
    more[0, position] = part.rows[at]
    # a network frozen at the site itself carries the write vector linearly
    from interp.circuits.frozen import rows

    through = rows(subject, batch, TARGET, [site])[site]
    assert float(row[at]) == pytest.approx(float((through * more[0]).sum()), abs=1e-9)
    assert frozen.y.shape == (1, 1)


def test_effects_are_of_latents_of_either_prompt(subject):
    other = subject.pad([[3, 20, 21, 22, 23]])
    spliced, _, network = networks(subject, "topk", other)
    latents, error = spliced.parts_at(subject, other)
    (captured,) = subject.capture(other, [spliced.gives]).values()
    rows = spliced.sae.W_dec[spliced.numbers]
    whole = torch.zeros(5, 32, dtype=torch.float64).index_add(
        0, spliced.positions, latents.values[:, None] * rows
    )
    counts = spliced.counts[:, None]
    assert torch.allclose((whole + error.values) * counts, captured[0] * counts)
    assert (latents.values != 0).any()
    assert (spliced.z == 0).any()


def test_latents_see_the_edits_before_them(subject):
    (site,) = subject.matching(["0.mlp_post"])
    with subject.edited(Edit(site, lambda x: x * 3)):
        _, batch, network = networks(subject, "standard")
        assert network.value == pytest.approx(float(TARGET.value(subject.logits(batch))), abs=1e-9)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"normalize_activations": "layer_norm"}, r"normalises its input \(layer_norm\)"),
        ({"hook_name": "nowhere"}, "does not say which site"),
        ({"seqpos_slice": (0, 3)}, "some positions of a text only"),
    ],
)
def test_what_cannot_be_spliced_is_said(subject, change, words):
    inner = made("standard")
    for key, value in change.items():
        setattr(inner.cfg if key == "normalize_activations" else inner.cfg.metadata, key, value)
    with pytest.raises(UserError, match=words):
        splice(subject, wrap(inner), subject.pad([[1, 2, 3]]), None, "it")
