"""Batched patching against a loop of plain edits; scores against autograd."""

import pytest
import torch

from interp.circuits.ablate import END, Patch, activations, patched
from interp.circuits.scores import EMBEDDED, gradient, rows
from interp.circuits.target import Target
from interp.circuits.tasks import Coded, reader
from interp.model.edits import Edit, patch
from interp.model.subject import open_subject

TARGET = Target("7 - 9", torch.tensor([7, 9]), torch.tensor([1.0, -1.0]))
IDS = torch.tensor([[3, 4, 5, 6, 7], [3, 4, 15, 6, 7]])
PAIR = Coded(IDS, 7, 9)


@pytest.fixture(scope="module", params=["llama", "gemma2", "gpt2", "gpt_neox"])
def opened(request, model_folder):
    """Gemma 2 has soft caps and norms after the MLP, GPT-2 biases and no gate."""
    subject = open_subject(model_folder(request.param), dtype=torch.float64)
    return subject, reader(subject.weights, subject.weights.W_U(), PAIR)


def test_the_target_is_the_models_own(opened):
    subject, read = opened
    end = activations(subject, IDS)[2]
    torch.testing.assert_close(read(end), TARGET.value(subject.logits(IDS)), rtol=0, atol=1e-9)


def test_a_row_of_all_neurons_comes_apart_again(opened):
    subject, _ = opened
    neurons, own, _ = activations(subject, IDS)
    by_site = subject.capture(IDS, ["*.mlp_post"])
    for site, part in neurons.split(own).items():
        assert torch.equal(part, by_site[site])
    number = neurons.total - 2
    place = neurons.place(number)
    assert place == (subject.spec.n_layers - 1, 4, neurons.widths[-1] - 2)
    assert own[1, number] == by_site[neurons.sites[-1]][1, place.position, place.neuron]
    with pytest.raises(IndexError):
        neurons.place(neurons.total)
    groups = neurons.groups()
    assert torch.equal(torch.cat([numbers for _, numbers in groups]), torch.arange(neurons.total))
    assert {(at.layer, at.position) for at, _ in groups} == {
        (layer, i) for layer in range(subject.spec.n_layers) for i in range(5)
    }


def test_batched_patches_are_those_of_a_loop(opened, monkeypatch):
    subject, read = opened
    monkeypatch.setattr("interp.circuits.ablate.ROWS", 3)  # several passes
    neurons, own, _ = activations(subject, IDS)
    generator = torch.Generator().manual_seed(0)
    patches = [
        Patch(torch.randperm(neurons.total, generator=generator)[:n], keep)
        for n in (0, 1, 40, neurons.total)
        for keep in (False, True)
    ]
    found = patched(subject, IDS[0], neurons, own[1], patches, read)
    for each, value in zip(patches, found, strict=True):
        chosen = torch.zeros(neurons.total, dtype=torch.bool)
        chosen[each.chosen] = True
        masks = neurons.split(chosen != each.keep)
        others = neurons.split(own[1])

        def change(site, masks=masks, others=others):
            return Edit(site, lambda h: torch.where(masks[site], others[site], h))

        with subject.edited(*map(change, neurons.sites)):
            expected = TARGET.value(subject.logits(IDS[:1]))[0]
        assert abs(float(value - expected)) < 1e-9
    assert abs(float(found[0] - found[-1])) < 1e-12  # removing none is keeping all


def test_patching_everything_moves_the_whole_gap(opened):
    subject, read = opened
    neurons, own, end = activations(subject, IDS)
    embedded = subject.capture(IDS[1:], [EMBEDDED])[EMBEDDED]
    every = Patch(torch.arange(neurons.total))
    with subject.edited(patch(EMBEDDED, embedded)):
        (moved,) = patched(subject, IDS[0], neurons, own[1], [every], read)
    before, after = read(end)
    assert abs(float(before - after)) > 1e-3
    assert float((before - moved) / (before - after)) == pytest.approx(1, abs=1e-9)


def test_gradients_are_autograds(opened):
    subject, read = opened
    neurons = activations(subject, IDS)[0]
    linked = subject.linked(IDS[:1], [*neurons.sites, "logits"])
    (logits,) = [linked.pop(site) for site in list(linked) if site not in neurons.sites]
    value = TARGET.value(subject.spec.capped(logits))
    expected = torch.autograd.grad(value.sum(), list(linked.values()))
    flat = neurons.flat(dict(zip(linked, expected, strict=True)))[0]
    torch.testing.assert_close(gradient(subject, IDS[:1], neurons, read), flat, rtol=0, atol=1e-9)


def test_integrated_gradients_are_a_mean_on_the_way(opened):
    subject, read = opened
    neurons = activations(subject, IDS)[0]
    start = subject.capture(IDS, [EMBEDDED])[EMBEDDED]
    total = torch.zeros(neurons.total, dtype=torch.float64)
    for share in (1 / 3, 2 / 3, 1):
        there = start[1:] + share * (start[:1] - start[1:])
        with subject.edited(patch(EMBEDDED, there)):
            total += gradient(subject, IDS[:1], neurons, read)
    found = rows(subject, PAIR, neurons, read, "integrated", 3)
    torch.testing.assert_close(found, total / 3, rtol=0, atol=1e-9)


def test_the_end_is_where_the_stream_ends(opened):
    subject, _ = opened
    end = activations(subject, IDS)[2]
    assert torch.equal(end, subject.capture(IDS, [END])[END][:, -1])
