"""Weight edits: applied and taken back bit for bit, in memory and on disk."""

import pytest
import torch

from interp.errors import UserError
from interp.model.neuron import parse_neuron
from interp.model.subject import open_subject
from interp.model.weights import Weights
from interp.neurons.weight_edits import WeightEdit, apply_to_folder

NAMES = {"llama": ("0.up.3", "1.gate.7", "1.down.5"), "gpt2": ("0.up.3", "1.down.5", "1.down.6")}


def made(folder, names):
    weights = Weights(folder)
    neurons = tuple(parse_neuron(name) for name in names)
    old = torch.stack([weights.neurons(n.kind, n.layer)[n.neuron] for n in neurons])
    return WeightEdit(neurons, old, -2 * old.flip(1), {"from": "a test"})


@pytest.fixture(params=["llama", "gpt2", "gemma2"])
def case(request, model_folder):
    """GPT-2 keeps its matrices the other way round; Gemma's are tied."""
    names = NAMES.get(request.param, NAMES["llama"])
    return model_folder(request.param), made(model_folder(request.param), names)


def test_applied_in_memory_and_taken_back(case):
    folder, edit = case
    subject, ids = open_subject(folder), torch.tensor([[1, 2, 3, 4]])
    model = subject._backend.model
    before, plain = {n: p.clone() for n, p in model.named_parameters()}, subject.logits(ids)
    with edit.applied(subject):
        assert not torch.equal(subject.logits(ids), plain)
        changed = {
            name: int((p != before[name]).any(-1).sum() > 0) for name, p in model.named_parameters()
        }
        assert sum(changed.values()) == len({(n.kind, n.layer) for n in edit.neurons})
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert torch.equal(subject.logits(ids), plain)


def test_taken_back_after_an_error(case):
    folder, edit = case
    subject, ids = open_subject(folder), torch.tensor([[1, 2, 3, 4]])
    plain = subject.logits(ids)
    with pytest.raises(ZeroDivisionError), edit.applied(subject):
        raise ZeroDivisionError
    assert torch.equal(subject.logits(ids), plain)


def test_on_disk_and_back(case, tmp_path):
    folder, edit = case
    apply_to_folder(edit, folder, tmp_path / "edited")
    ids = torch.tensor([[1, 2, 3, 4]])
    subject = open_subject(folder)
    with edit.applied(subject):
        want = subject.logits(ids)
    assert torch.equal(open_subject(tmp_path / "edited").logits(ids), want)
    theirs, ours = Weights(tmp_path / "edited"), Weights(folder)
    for i, n in enumerate(edit.neurons):
        assert torch.equal(theirs.neurons(n.kind, n.layer)[n.neuron], edit.new[i])
        others = torch.ones(ours.spec.d_mlp, dtype=torch.bool)
        others[[m.neuron for m in edit.neurons if m[:2] == n[:2]]] = False
        both = [w.neurons(n.kind, n.layer)[others] for w in (ours, theirs)]
        assert torch.equal(*both), "untouched rows stay identical"
    apply_to_folder(edit.inverse, tmp_path / "edited", tmp_path / "back")
    names = [name for name in (folder).iterdir() if name.suffix == ".safetensors"]
    for path in names:
        from safetensors.torch import load_file

        a, b = load_file(path), load_file(tmp_path / "back" / path.name)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_small_file(case, tmp_path):
    _, edit = case
    edit.save(tmp_path / "edit.safetensors")
    again = WeightEdit.load(tmp_path / "edit.safetensors")
    assert again.neurons == edit.neurons
    assert torch.equal(again.old, edit.old)
    assert torch.equal(again.new, edit.new)
    assert again.provenance == {"from": "a test"}
    assert (tmp_path / "edit.safetensors").stat().st_size < 2000


def test_joined_and_first(case):
    _, edit = case
    both = WeightEdit.joined(
        [edit.first(1), WeightEdit(edit.neurons[1:], edit.old[1:], edit.new[1:])]
    )
    assert both.neurons == edit.neurons
    assert torch.equal(both.new, edit.new)
    with pytest.raises(ValueError, match="4 neurons"):
        WeightEdit.joined([edit, edit.first(1)])


def test_mistakes(case, model_folder, tmp_path):
    folder, edit = case
    wrong = WeightEdit(edit.neurons, edit.old + 1, edit.new)
    with pytest.raises(UserError, match="of another model"), wrong.applied(open_subject(folder)):
        pass
    with pytest.raises(UserError, match="of another model"):
        apply_to_folder(wrong, folder, tmp_path / "out")
    assert not list(tmp_path.iterdir()), "nothing is left behind"
    with pytest.raises(UserError, match="exists already"):
        apply_to_folder(edit, folder, tmp_path)
    with (
        pytest.raises(UserError, match="native backend"),
        edit.applied(open_subject(folder, "nnsight")),
    ):
        pass
    far = WeightEdit((parse_neuron("0.down.9999"),), edit.old[:1], edit.new[:1])
    with pytest.raises(UserError, match="no neuron 0.down.9999"), far.applied(open_subject(folder)):
        pass
    with pytest.raises(UserError, match="no neuron 0.down.9999"):
        apply_to_folder(far, folder, tmp_path / "out")
    with pytest.raises(ValueError, match="NaN"):
        WeightEdit(edit.neurons, edit.old, edit.new * torch.nan)
    with pytest.raises(UserError, match="in the model's own folder"):
        apply_to_folder(edit, folder, folder / "out")
    (tmp_path / "junk").write_bytes(b"junk")
    with pytest.raises(UserError, match="holds no weight edit"):
        WeightEdit.load(tmp_path / "junk")
