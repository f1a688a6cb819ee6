"""Edges: what flows into a node is what it has, and what flows out of it is too."""

import pytest
import torch
import torch.nn.functional as F
from transformers.models.llama import modeling_llama

from interp.circuits.graph import chosen, drawn
from interp.circuits.network import Node, open_network
from interp.circuits.target import Target
from interp.model.edits import clamp
from interp.model.subject import open_subject

TARGET = Target("7 - 9", torch.tensor([7, 9]), torch.tensor([1.0, -1.0]))
FAMILIES = ["llama", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "opt", "qwen3", "mixtral"]


def opened(model_folder, family, rule="half", dtype=torch.float64, length=5):
    subject = open_subject(model_folder(family), dtype=dtype, attention="eager")
    batch = subject.pad([list(range(3, 3 + length))])
    return subject, open_network(subject, batch, TARGET, rule)


def every(network):
    """All nodes that something flows into."""
    return [
        Node(n, tuple(index))
        for n, part in enumerate(network.parts)
        if part.flows
        for index in (network.attributions[n] == network.attributions[n]).nonzero().tolist()
    ]


@pytest.mark.parametrize("rule", ["half", "gate"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_flows_in_and_out_of_a_node_is_what_it_has(model_folder, family, rule):
    _, network = opened(model_folder, family, rule)
    out = [each.double() for each in network.flow_to_target().shares]
    assert abs(sum(float(each.sum()) for each in out) - network.value) < 1e-9
    for node, shares, _ in network.flows(every(network)):
        into = sum(float(each.sum()) for each in shares)
        assert abs(into - float(network.attributions[node.part][node.at])) < 1e-9
        out = [a + b for a, b in zip(out, shares, strict=True)]
    for found, own in zip(out, network.attributions, strict=True):
        assert torch.allclose(found, own, atol=1e-9)
    assert max(abs(value - network.value) for value in network.cuts.values()) < 1e-9


def test_in_single_precision_the_sums_hold_to_a_ten_thousandth(model_folder):
    _, network = opened(model_folder, "llama", dtype=torch.float32)
    for node, shares, _ in network.flows(every(network)[::7]):
        into = sum(float(each.sum()) for each in shares)
        assert abs(into - float(network.attributions[node.part][node.at])) < 1e-4


def test_the_heads_of_a_position_share_what_they_write(model_folder):
    """Sums over sources are the product of row and head output, in a family of grouped queries."""
    subject, network = opened(model_folder, "llama")
    every = zip(network.parts, network.rows, network.attributions, strict=True)
    heads = [(part, row, found) for part, row, found in every if part.kind == "head"]
    assert len(heads) == subject.spec.n_layers
    for part, row, found in heads:
        z = torch.einsum("hts,shd->thd", part.patterns, part.values)
        (captured,) = subject.capture(torch.arange(3, 8)[None], [f"{part.layer}.head_z"]).values()
        assert torch.allclose(z, captured[0])
        assert torch.allclose(found.sum(-1), (row * captured[0]).sum(-1))


def test_edges_are_a_second_derivative(model_folder, monkeypatch):
    """d2 target / d a_u d a_v of scales of two neurons' activations, with every decision detached
    and the heads between them cut."""
    subject, network = opened(model_folder, "llama")
    first, last = (n for n, part in enumerate(network.parts) if part.kind == "neuron")

    def norm(self, x):
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * (x * scale.detach())

    scales = []

    def mlp(self, x):
        z, up = self.gate_proj(x), self.up_proj(x)
        gate = z * (F.silu(z) / z).detach()
        product = (gate.detach() * up + gate * up.detach()) / 2
        scales.append(torch.ones_like(product).requires_grad_(True))
        return self.down_proj(product * scales[-1])

    monkeypatch.setattr(modeling_llama.LlamaRMSNorm, "forward", norm)
    monkeypatch.setattr(modeling_llama.LlamaMLP, "forward", mlp)
    outputs = subject.network.model.layers[1].self_attn.o_proj
    handle = outputs.register_forward_pre_hook(lambda _, args: (args[0].detach(),))
    logits = subject.network(torch.arange(3, 8)[None]).logits
    handle.remove()
    (gradient,) = torch.autograd.grad(TARGET.value(logits).sum(), scales[1], create_graph=True)
    nodes = [Node(last, (4, neuron)) for neuron in range(6)]
    for node, shares, _ in network.flows(nodes):
        (second,) = torch.autograd.grad(gradient[0, 4, node.at[1]], scales[0], retain_graph=True)
        assert second[0, 4].abs().max() > 1e-6
        assert torch.allclose(second[0], shares[first], atol=1e-12)


def test_what_is_not_drawn_comes_from_the_remainder(model_folder):
    _, network = opened(model_folder, "gpt2")
    nodes, share = chosen(network, network.attributions, 0.5, 20)
    edges, error = drawn(network, nodes, 0.8, lambda _: None)
    assert len([n for n in nodes if network.parts[n.part].kind != "embedding"]) == 20
    assert 0 < share < 0.5
    assert error < 1e-9
    for number, node in enumerate(nodes):
        if network.parts[node.part].flows:
            total = sum(edge.weight for edge in edges if edge.target == number)
            own = float(network.attributions[node.part][node.at])
            assert abs(total - own) < 1e-9
    into = sum(edge.weight for edge in edges if edge.target == len(nodes))
    assert abs(into - network.value) < 1e-9


def test_the_largest_nodes_are_kept(model_folder):
    _, network = opened(model_folder, "llama")
    nodes, share = chosen(network, network.attributions, 0.3, 10**6)
    free = torch.cat([
        found.flatten().abs()
        for part, found in zip(network.parts, network.attributions, strict=True)
        if part.kind != "embedding"
    ])  # fmt: skip
    kept = [
        abs(float(network.attributions[node.part][node.at]))
        for node in nodes
        if network.parts[node.part].kind != "embedding"
    ]
    assert sorted(kept) == pytest.approx(sorted(free.tolist())[-len(kept) :])
    assert share == pytest.approx(sum(kept) / float(free.sum()))
    assert share >= 0.3 > share - min(kept) / float(free.sum())


def test_effects_flow_out_of_a_node_as_they_are(model_folder):
    """What a node changes by, times its gradient, is shared among those that read it; into the
    target flows what its last readers make of the change."""
    subject = open_subject(model_folder("llama"), dtype=torch.float64, attention="eager")
    batch, other = subject.pad([list(range(3, 8))]), subject.pad([[3, 4, 30, 6, 7]])
    network = open_network(subject, batch, TARGET, "half", other=other)
    out = [each.clone() for each in network.flow_to_target().effects]
    for _, _, effects in network.flows(every(network)):
        out = [a + b for a, b in zip(out, effects, strict=True)]
    assert network.effects[0][2].abs() > 1e-6
    for found, own in zip(out, network.effects, strict=True):
        assert torch.allclose(found, own, atol=1e-9)
    for part, found in zip(network.parts, network.effects, strict=True):
        if part.kind != "bias":
            assert not found[:2].any()  # before the word that differs
    (x,) = subject.capture(batch, ["1.mlp_post"]).values()
    (y,) = subject.capture(other, ["1.mlp_post"]).values()
    last = max(n for n, part in enumerate(network.parts) if part.kind == "neuron")
    assert torch.allclose(network.effects[last], network.rows[last] * (x - y)[0])
    assert network.counterfactual == pytest.approx(float(TARGET.value(subject.logits(other))))


def test_what_a_norm_takes_away_has_nothing_of_the_target(model_folder, tmp_path):
    """A neuron of the last layer that writes the same number everywhere: LayerNorm's mean is all of
    it, and patching it changes nothing."""
    subject = open_subject(model_folder("gpt2"), dtype=torch.float64, attention="eager")
    weight = subject.network.transformer.h[1].mlp.c_proj.weight
    before = weight[7].clone()
    with torch.no_grad():
        weight[7] = 3.0
    batch = subject.pad([list(range(3, 8))])
    network = open_network(subject, batch, TARGET)
    (site,) = subject.matching(["1.mlp_post"])
    with subject.edited(clamp(site, 7, 5.0, where="last")):
        held = float(TARGET.value(subject.logits(batch)))
    with torch.no_grad():
        weight[7] = before
    assert held == pytest.approx(network.value, abs=1e-12)
    last = max(n for n, part in enumerate(network.parts) if part.kind == "neuron")
    assert float(network.parts[last].values[4, 7].abs()) > 1e-3
    assert float(network.attributions[last][4, 7]) == pytest.approx(0, abs=1e-12)


def test_experts_are_followed_in_single_precision_too(model_folder):
    _, network = opened(model_folder, "mixtral", dtype=torch.float32)
    assert "mlp" in {part.kind for part in network.parts}
    assert max(abs(value - network.value) for value in network.cuts.values()) < 1e-4


def test_edges_that_carry_nothing_are_none(model_folder):
    _, network = opened(model_folder, "llama")
    nodes, _ = chosen(network, network.attributions, 1.0, 60)
    edges, _ = drawn(network, nodes, 1.0, lambda _: None)
    assert all(edge.weight for edge in edges if edge.source != len(nodes) + 1)
