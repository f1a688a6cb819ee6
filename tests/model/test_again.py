"""A batch passed again under edits: to the bit the whole pass, with fewer layers run."""

import pytest
import torch

from interp.model import again as module
from interp.model import edits
from interp.model.again import Again
from interp.model.families import FAMILIES
from interp.model.site import Site
from interp.model.subject import open_subject

from ..conftest import make_model

ALONE = [name for name, family in FAMILIES.items() if not (family.inside or family.no_sites)]


def opened(family, backend="native", **changes):
    return open_subject(make_model(family, **changes), backend)


@pytest.fixture
def subject():
    return opened("llama", num_hidden_layers=4)


@pytest.fixture
def batch(subject):
    return subject.pad([[5, 6, 7, 8, 9], [1, 2], [3, 4, 5]])


def runs(subject):
    """How often each layer computes."""
    counts = [0] * subject.spec.n_layers
    for i, layer in enumerate(subject.network.model.layers):

        def count(_, args, i=i):
            counts[i] += 1

        layer.mlp.register_forward_pre_hook(count)
    return counts


@pytest.mark.parametrize("sites", [["3.mlp_post"], ["1.resid_post", "2.resid_pre"], ["logits"]])
def test_edits_give_the_bits_of_a_whole_pass(subject, batch, sites):
    again = Again(subject, batch)
    for value in (0.5, -2.0, 3.0):
        with subject.edited(*(edits.clamp(Site.parse(site), 3, value) for site in sites)):
            assert torch.equal(again.logits(), subject.logits(batch))
    assert torch.equal(again.logits(), subject.logits(batch))
    with subject.edited(edits.clamp(Site.parse("0.mlp_post"), 3, 1.0)):
        assert torch.equal(again.logits(), subject.logits(batch))


@pytest.mark.parametrize("site", ["2.resid_pre", "2.attn_out", "final_norm_in"])
def test_an_edit_that_writes_into_what_it_gets_changes_its_own_pass_alone(subject, batch, site):
    again, double = Again(subject, batch), edits.Edit(Site.parse(site), lambda x: x.mul_(2.0))
    plain = again.logits()
    for _ in range(3):
        with subject.edited(double):
            assert torch.equal(again.logits(), subject.logits(batch))
    assert torch.equal(again.logits(), plain)


def test_layers_before_the_edit_run_once(subject, batch):
    again, counts = Again(subject, batch), runs(subject)
    for value in (1.0, 2.0, 3.0):
        with subject.edited(edits.clamp(Site.parse("2.mlp_post"), 3, value)):
            again.logits()
    assert counts == [1, 1, 3, 3]
    with subject.edited(edits.clamp(Site.parse("3.mlp_post"), 3, 1.0)):
        again.logits()
        again.logits()
    assert counts == [1, 1, 4, 5]
    again.logits()
    assert counts == [1, 1, 4, 6], "behind the edit nothing was kept"
    again.logits()
    assert counts == [1, 1, 4, 6]


def test_what_is_captured(subject, batch):
    again, counts = Again(subject, batch), runs(subject)
    ends = [Site("final_norm_in"), Site("mlp_post", 3)]
    for value in (1.0, 2.0):
        with subject.edited(edits.clamp(Site("resid_pre", 2), 3, value)):
            found, ran = again.capture(ends), list(counts)
            whole = subject.capture(batch, ends)
            counts[:] = ran
        assert all(torch.equal(found[site], whole[site]) for site in ends)
    assert counts == [1, 1, 2, 2]
    early = Site("mlp_out", 1)
    with subject.edited(edits.clamp(Site("resid_pre", 3), 3, 1.0)):
        assert torch.equal(again.capture([early])[early], subject.capture(batch, [early])[early])


def test_changed_weights(subject, batch):
    again, weight = Again(subject, batch), subject.parameter("model.layers.2.mlp.down_proj.weight")
    plain, own = again.logits(), weight.clone()
    with torch.no_grad():
        weight[:, 3] = 1.0
    changed = again.logits(changed=2)
    assert torch.equal(changed, subject.logits(batch))
    assert not torch.equal(changed, plain)
    with subject.edited(edits.clamp(Site.parse("1.mlp_post"), 3, 1.0)):
        assert torch.equal(again.logits(changed=2), subject.logits(batch))
    with torch.no_grad():
        weight.copy_(own)
    assert torch.equal(again.logits(), plain)


def test_layers_are_as_before_when_a_pass_ends_in_an_error(subject, batch):
    again = Again(subject, batch)
    plain = again.logits()

    def breaks(x):
        raise RuntimeError("broken")

    edit = edits.Edit(subject.matching(["3.mlp_post"])[0], breaks)
    with subject.edited(edit), pytest.raises(RuntimeError, match="broken"):
        again.logits()
    assert all("forward" not in vars(layer) for layer in subject.network.model.layers)
    assert torch.equal(again.logits(), plain)


@pytest.mark.parametrize("family", ALONE)
def test_every_architecture(family):
    subject = opened(family)
    batch, last = subject.pad([[5, 6, 7, 8, 9], [1, 2]]), subject.spec.n_layers - 1
    site = next(s for s in subject.sites if s.layer == last and s.kind == "mlp_out")
    again = Again(subject, batch)
    again.logits()
    with subject.edited(edits.clamp(site, 3, 2.0)):
        assert torch.equal(again.logits(), subject.logits(batch))


def test_layers_that_read_more_than_the_stream_always_run(subject, batch):
    """Of which the last also reads what the first one has made."""
    first, last = subject.network.model.layers[0], subject.network.model.layers[3]
    made = []
    first.mlp.register_forward_hook(lambda _, args, out: made.append(out))
    last.mlp.register_forward_hook(lambda _, args, out: out + made.pop() if made else out)
    again = Again(subject, batch)
    for value in (1.0, 2.0):
        with subject.edited(edits.clamp(Site.parse("3.resid_post"), 3, value)):
            assert torch.equal(again.logits(), subject.logits(batch))
    assert not module._layers(subject)


def test_another_backend_runs_whole_passes():
    subject = opened("llama", "bridge")
    batch = subject.pad([[5, 6, 7]])
    again = Again(subject, batch)
    for value in (1.0, 2.0):
        with subject.edited(edits.clamp(Site.parse("1.mlp_post"), 3, value)):
            assert torch.equal(again.logits(), subject.logits(batch))
