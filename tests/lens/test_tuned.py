"""The tuned lens: a planted affine map is found, and a stopped training goes on as it was."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from interp.errors import UserError
from interp.lens import states
from interp.lens.compare import LensCompareConfig
from interp.lens.files import export, open_lens
from interp.lens.lens import Lens, read
from interp.lens.states import Reader, drawn, kl_from, states_at
from interp.lens.tune import TuneConfig
from interp.lens.tuning import Affine
from interp.model.subject import open_subject
from interp.model.weights import open_weights
from interp.runs import checkpoint
from interp.runs.store import Store
from interp.runs.study import run_or_load

from ..conftest import make_dog_model
from ..workers import assert_same_by_two


def config(model, text, **changes):
    sizes = {"prompts": 20, "held_out": 4, "length": 12, "skip": 2, "positions": 4}
    return TuneConfig(str(model), corpus=text, **{**sizes, **changes})


def test_an_untrained_map_is_the_logit_lens(dog_model):
    weights = open_weights(str(dog_model))
    x = torch.randn(6, weights.spec.d_model) * torch.logspace(-3, 2, weights.spec.d_model)
    layer = Affine(x)
    assert torch.equal(layer(x), x)
    assert torch.equal(layer.map(), torch.eye(len(x[0])))
    lens = Lens(weights, "tuned", {0: layer.map()}, 1, {0: layer.bias()})
    assert torch.equal(lens.logits(x, 0), Lens(weights, "final").logits(x, 0))


def test_what_is_trained_is_what_the_lens_reads(dog_model):
    weights = open_weights(str(dog_model))
    x = torch.randn(6, weights.spec.d_model) * torch.logspace(-3, 2, weights.spec.d_model)
    layer = Affine(x)
    with torch.no_grad():
        layer.W.normal_()
        layer.beta.normal_()
        trained = read(weights, layer(x))
    lens = Lens(weights, "tuned", {0: layer.map()}, 1, {0: layer.bias()})
    torch.testing.assert_close(lens.logits(x, 0), trained, rtol=1e-4, atol=1e-4)


def test_a_planted_map_is_found(dog_model):
    """The stream is an affine image of what the model reads: after training, KL is near 0."""
    weights = open_weights(str(dog_model))
    width, generator = weights.spec.d_model, torch.Generator().manual_seed(0)
    last = torch.randn(256, width, generator=generator)
    own = read(weights, last).log_softmax(-1)
    mixed = torch.eye(width) + 0.3 * torch.randn(width, width, generator=generator) / width**0.5
    x = (last + 0.5) @ mixed
    layer = Affine(x)
    optimiser = torch.optim.Adam(layer.parameters(), lr=1e-2)
    kls = []
    for _ in range(300):
        kl = kl_from(own, read(weights, layer(x))).mean()
        optimiser.zero_grad()
        kl.backward()
        optimiser.step()
        kls.append(float(kl.detach()))
    assert kls[-1] < 0.02 * kls[0]


def test_states_are_those_of_single_passages(dog_model):
    subject = open_subject(str(dog_model))
    rows = [[3, 4, 5, 6, 7, 8, 9], [13, 4, 15, 6, 17, 8, 19]]
    places = drawn(2, 7, 1, 3, seed=5)
    assert places.min() >= 1
    assert places.max() <= 5
    assert all(len(set(row)) == 3 for row in places.tolist())
    read_at = states_at(
        Reader(subject, subject.weights, subject.weights.W_U(), 1, 3, 0), rows, places
    )
    for number, (row, at) in enumerate(
        (r, a) for r, p in zip(rows, places, strict=True) for a in p
    ):
        own = subject.logits(subject.pad([row]))[0, at].log_softmax(-1)
        torch.testing.assert_close(read_at.own[number], own, rtol=1e-4, atol=1e-4)
        assert read_at.following[number] == row[at + 1]
    expected = torch.nn.functional.kl_div(own, own.flip(0), log_target=True, reduction="sum")
    torch.testing.assert_close(kl_from(own.flip(0)[None], own[None])[0], expected)


def test_kl_falls_on_other_documents(dog_model, own_home, text, tmp_path):
    asked = config(dog_model, text, prompts=32, positions=8, batch_size=1)
    run = run_or_load(asked, Store(tmp_path))
    layers = run.table("layers")
    assert layers["layer"].tolist() == [0]
    assert (layers["kl"] < 0.9 * layers["logit_kl"]).all()
    assert len(run.table("curve")) == 32
    lens = open_lens(str(run.path), open_weights(str(dog_model)))
    assert (lens.name, lens.prompts, set(lens.biases)) == ("tuned", 32, {0})


def test_a_stopped_training_goes_on_where_it_was(dog_model, own_home, text, tmp_path, monkeypatch):
    whole = run_or_load(config(dog_model, text), Store(tmp_path / "whole"))
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", 0)
    asked = []

    def stopping(*arguments):
        asked.append(arguments)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return states_at(*arguments)

    monkeypatch.setattr(states, "states_at", stopping)
    store = Store(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        run_or_load(config(dog_model, text), store)
    again = run_or_load(config(dog_model, text), store)
    for name in ("lens.safetensors", "layers.parquet", "curve.parquet"):
        assert again.manifest["files"][name] == whole.manifest["files"][name]
    # the first step's states twice in each process, five steps, one of them again, one held out
    assert len(asked) == 2 + 5 + 1 + 1


def test_lenses_compared(dog_model, own_home, text, tmp_path):
    store = Store(tmp_path)
    run_or_load(config(dog_model, text, prompts=32, positions=8, batch_size=1), store)
    sizes = {"documents": 4, "length": 12, "skip": 2, "positions": 4, "after": 36}
    asked = LensCompareConfig(str(dog_model), ("final", "tuned"), corpus=text, **sizes)
    run = run_or_load(asked, store)
    table = run.table("layers").set_index(["lens", "layer"])
    last = table.xs(1, level="layer")
    assert last["kl"].abs().max() < 1e-6
    assert (last["agreement"] == 1).all()
    assert table.loc[("tuned", 0), "kl"] < table.loc[("final", 0), "kl"]
    assert (table["kl_low"] <= table["kl"]).all()
    assert run.manifest["lenses"]["tuned"]["prompts"] == 32
    parted = replace(asked, batch_size=2)  # the lens is in the store of who asked
    assert_same_by_two(parted, run_or_load(parted, store), tmp_path / "others", store)


def test_lenses_of_other_layers_are_compared_over_those_they_share(
    model_folder, own_home, text, tmp_path
):
    folder = tmp_path / "model"
    shutil.copytree(model_folder("llama", num_hidden_layers=3), folder)
    make_dog_model(folder)
    weights, paths = open_weights(str(folder)), {}
    for name, layers in {"both": [0, 1], "second": [1], "first": [0]}.items():
        maps = {layer: (layer + 2) * torch.eye(weights.spec.d_model) for layer in layers}
        paths[name] = str(tmp_path / f"{name}.safetensors")
        export(Lens(weights, "jacobian", maps, 1), Path(paths[name]))
    sizes = {"corpus": text, "documents": 2, "length": 12, "skip": 2, "positions": 4}

    def compared(*names):
        lenses = tuple(paths.get(name, name) for name in names)
        run = run_or_load(
            LensCompareConfig(str(folder), lenses, after=3, **sizes), Store(tmp_path / "runs")
        )
        return run.metrics, run.table("layers").set_index(["lens", "layer"])["kl"]

    metrics, kl = compared("final", "second")
    assert metrics.pop("layers in the means") == 1
    second = paths["second"]
    expected = {"kl, final": kl["final", 1], f"kl, {second}": kl[second, 1]}
    assert metrics == pytest.approx(expected)
    metrics, kl = compared("final", "both")
    assert metrics["layers in the means"] == 2
    assert metrics["kl, final"] == pytest.approx((kl["final", 0] + kl["final", 1]) / 2)
    metrics, _ = compared("first", "second")
    assert metrics == {"layers in the means": 0}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"prompts": 0}, "--prompts"),
        ({"skip": 8}, "--skip"),
        ({"rate": 0.0}, "--rate"),
        ({"held_out": 40}, "36 documents|ask for fewer"),
    ],
)
def test_trainings_that_cannot_be(changes, says, dog_model, own_home, text, tmp_path):
    with pytest.raises(UserError, match=says):
        run_or_load(config(dog_model, text, **changes), Store(tmp_path))
