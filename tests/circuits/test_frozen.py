"""The frozen network of a prompt: exact sums, and autograd with the decisions detached."""

import pytest
import torch
import torch.nn.functional as F
from transformers.models.llama import modeling_llama

from interp.circuits.frozen import INPUT, freeze, rows
from interp.circuits.target import Target
from interp.errors import UserError
from interp.model.edits import Edit
from interp.model.subject import open_subject

FAMILIES = ["llama", "gemma2", "gemma3_text", "gpt2", "gpt_neo", "gpt_neox", "qwen3"]
TARGET = Target("7 - 9", torch.tensor([7, 9]), torch.tensor([1.0, -1.0]), position=4)


def opened(model_folder, family):
    subject = open_subject(model_folder(family), dtype=torch.float64)
    return subject, subject.pad([list(range(3, 10))])


@pytest.mark.parametrize("rule", ["half", "gate"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_cut_adds_up_to_the_target(model_folder, family, rule):
    """Row times stream after any layer, plus the constants that are added behind it."""
    subject, batch = opened(model_folder, family)
    sites = [INPUT, *subject.matching(["*.resid_post"])]
    frozen = freeze(subject, batch, TARGET, sites, rule)
    run = frozen.system.unrolled(set(frozen.slots.values()))
    value = float(TARGET.value(subject.logits(batch)))
    for site, row in frozen.rows().items():
        slot = frozen.slots[site]
        behind = [c.leaf for c in run.constants if c.slot > slot]
        shares = torch.autograd.grad(run.output.sum(), behind, retain_graph=True) if behind else []
        total = (row * run.made[slot][0]).sum() + sum(
            (share * leaf).sum() for share, leaf in zip(shares, behind, strict=True)
        )
        assert abs(float(total.detach()) - value) < 1e-9


@pytest.mark.parametrize("rule", ["half", "gate"])
def test_rows_are_autograds_with_the_decisions_detached(model_folder, monkeypatch, rule):
    """A llama whose own code detaches patterns, norm scales, slopes and, by the rule, the gate."""
    subject, batch = opened(model_folder, "llama")
    found = rows(subject, batch, TARGET, ["*.mlp_post", "*.head_z", "*.resid_post"], rule)

    def norm(self, x):
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * (x * scale.detach())

    def mlp(self, x):
        z, up = self.gate_proj(x), self.up_proj(x)
        gate = z * (F.silu(z) / z).detach()
        product = gate.detach() * up
        if rule == "half":
            product = (product + gate * up.detach()) / 2
        return self.down_proj(product)

    plain = F.softmax
    monkeypatch.setattr(modeling_llama.LlamaRMSNorm, "forward", norm)
    monkeypatch.setattr(modeling_llama.LlamaMLP, "forward", mlp)
    monkeypatch.setattr(F, "softmax", lambda *a, **k: plain(*a, **k).detach())
    eager = open_subject(subject.network, attention="eager")
    linked = eager.linked(batch, [*found, "logits"])
    (logits,) = [linked.pop(site) for site in list(linked) if site.kind == "logits"]
    expected = torch.autograd.grad(TARGET.value(logits).sum(), list(linked.values()))
    for site, row in zip(linked, expected, strict=True):
        assert torch.allclose(found[site], row[0], atol=1e-12), site


def test_a_rows_product_is_what_a_small_change_of_the_frozen_network_makes(model_folder):
    subject, batch = opened(model_folder, "llama")
    frozen = freeze(subject, batch, TARGET, [], "half")
    change = torch.randn_like(frozen.system.x0)
    moved = frozen.system(frozen.system.x0 + change) - frozen.system.y
    assert torch.allclose(moved[0, 0], (frozen.rows()[INPUT] * change[0]).sum())


def test_edits_in_scope_are_part_of_the_network(model_folder):
    subject, batch = opened(model_folder, "llama")
    plain = rows(subject, batch, TARGET, ["1.mlp_post"])
    (site,) = subject.matching(["0.mlp_post"])
    with subject.edited(Edit(site, lambda x: x * 2)):
        value = TARGET.value(subject.logits(batch))
        frozen = freeze(subject, batch, TARGET, [], "half")
        edited = rows(subject, batch, TARGET, ["1.mlp_post"])
    assert torch.allclose(frozen.system.y[0], value)
    assert not torch.allclose(*plain.values(), *edited.values())


def test_what_cannot_be_frozen_is_said(model_folder):
    subject, batch = opened(model_folder, "llama")
    with pytest.raises(UserError, match="no rule 'whole': choose half or gate"):
        rows(subject, batch, TARGET, ["1.mlp_post"], "whole")
    with pytest.raises(UserError, match="give one prompt, not 2"):
        rows(subject, subject.pad([[1, 2, 3]] * 2), TARGET, ["1.mlp_post"])
