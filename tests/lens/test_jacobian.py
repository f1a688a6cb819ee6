"""The Jacobian lens against derivatives by brute force, and as a study that is stopped."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from interp.lens import fitting
from interp.lens.fit import FitConfig
from interp.lens.fitting import layers_table
from interp.lens.jacobian import prompt_rows
from interp.model.batch import Batch
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.runs import checkpoint
from interp.runs.store import Store
from interp.runs.study import run_or_load

from ..conftest import make_model

SKIP, LENGTH = 2, 7


@pytest.fixture(scope="module", params=["llama", "gemma3_text", "gpt_neox"])
def subject(request):
    return open_subject(make_model(request.param).double(), dtype=torch.float64)


def brute(subject, row):
    """J of one prompt, by differences of whole passes: sum over targets, mean over sources."""
    last = Site("resid_post", subject.spec.n_layers - 1)
    batch, step = subject.pad([row]), 1e-4
    places = range(SKIP, LENGTH - 1)
    found = torch.zeros(subject.spec.n_layers - 1, subject.spec.d_model, 3, dtype=torch.float64)
    for layer in range(subject.spec.n_layers - 1):
        site = Site("resid_post", layer)
        for column in range(3):
            for source in places:
                ends = []
                for sign in (1, -1):
                    where = torch.zeros(1, LENGTH, dtype=torch.bool)
                    where[0, source] = True
                    added = torch.zeros(subject.spec.d_model, dtype=torch.float64)
                    added[column] = sign * step
                    from interp.model.edits import add

                    with subject.edited(add(site, added, where=where)):
                        ends.append(subject.capture(batch, [last])[last])
                change = (ends[0] - ends[1])[0, places.start : places.stop] / (2 * step)
                found[layer, :, column] += change.sum(0) / len(places)
    return found


def test_rows_are_what_differences_of_passes_give(subject):
    rows = [list(range(5, 5 + LENGTH)), list(range(90, 90 + LENGTH))]
    found = torch.stack([row for _, row in prompt_rows(subject, rows, SKIP)])
    assert found.shape == (subject.spec.d_model, subject.spec.n_layers - 1, 2, subject.spec.d_model)
    for prompt, row in enumerate(rows):
        expected = brute(subject, row)
        torch.testing.assert_close(
            found[..., prompt, :3].transpose(0, 1), expected, rtol=1e-6, atol=1e-7
        )


class Linear:
    """A residual network of linear layers, each position alone, as far as `prompt_rows` asks."""

    def __init__(self, layers, width):
        generator = torch.Generator().manual_seed(0)
        shape = (layers, width, width)
        self.W = torch.randn(shape, generator=generator, dtype=torch.float64) / width
        self.spec = SimpleNamespace(n_layers=layers, d_model=width)

    def pad(self, rows):
        return Batch(torch.tensor(rows), torch.ones(len(rows), len(rows[0]), dtype=torch.bool))

    def linked(self, batch, sites):
        x = torch.nn.functional.one_hot(batch.ids, self.spec.d_model).double().requires_grad_()
        found = {}
        for layer, W in enumerate(self.W):
            x = x + x @ W.T
            found[Site("resid_post", layer)] = x
        return {site: found[site] for site in sites}


def test_of_linear_layers_it_is_the_product_of_what_follows():
    network = Linear(4, 6)
    rows = [[0, 1, 2, 3, 4, 5, 0], [5, 5, 1, 0, 2, 3, 1]]
    found = torch.stack([row for _, row in prompt_rows(network, rows, SKIP)])
    for layer in range(3):
        expected = torch.eye(6, dtype=torch.float64)
        for W in network.W[layer + 1 :]:
            expected = (torch.eye(6) + W) @ expected
        for prompt in range(2):
            torch.testing.assert_close(found[:, layer, prompt], expected, rtol=1e-12, atol=1e-12)


def test_rows_from_some_row_on_are_the_same(subject):
    rows = [list(range(LENGTH))]
    whole = dict(prompt_rows(subject, rows, SKIP))
    some = dict(prompt_rows(subject, rows, SKIP, first=20, end=29))
    assert list(some) == list(range(20, 29))
    for i, row in some.items():
        assert torch.equal(row, whole[i])


def test_agreement_is_one_for_equal_halves():
    one = torch.randn(3, 5, 5, dtype=torch.float64)
    table = layers_table(one, torch.stack([one, 2 * one]))
    assert table["agreement"].tolist() == pytest.approx([1, 1, 1])
    assert table["trace"].tolist() == pytest.approx([float(j.trace()) / 5 for j in one])


@pytest.fixture
def config(dog_model, tmp_path, monkeypatch):
    """A fit whose checkpoints come after every part, of 8 of 32 rows."""
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", 0)
    monkeypatch.setattr(fitting, "ROWS", 8)
    text = tmp_path / "text.jsonl"
    words = [
        '{"text": "' + " ".join(f"w{(7 * d + i) % 200}" for i in range(40)) + '"}' for d in range(5)
    ]
    text.write_text("\n".join(words))
    return FitConfig(str(dog_model), corpus=str(text), prompts=5, length=12, skip=2, batch_size=2)


@pytest.fixture
def stopped_at_row_45(monkeypatch):
    """The rows that are asked for; the 45th stops the run."""
    asked = []

    def stopping(*arguments):
        for i, row in prompt_rows(*arguments):
            asked.append(i)
            if len(asked) == 45:
                raise KeyboardInterrupt
            yield i, row

    monkeypatch.setattr(fitting, "prompt_rows", stopping)
    return asked


def files(run):
    return {name: part["sha256"] for name, part in run.manifest["files"].items()}


def test_a_stopped_fit_goes_on_where_it_was(config, stopped_at_row_45, tmp_path, monkeypatch):
    store = Store(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        run_or_load(config, store)
    again = run_or_load(config, store)
    assert len(stopped_at_row_45) == 3 * 32 + 5  # those of the part that was stopped come again
    monkeypatch.setattr(fitting, "ROWS", 64)
    whole = run_or_load(config, Store(tmp_path / "whole"))
    assert files(again) == files(whole)
    assert len(files(whole)) == 3
    assert {"parity", "text"} <= set(again.manifest)
    assert whole.metrics["prompts"] == 5
    J, halves = (load_file(whole.part(f"{n}.safetensors"))["T"] for n in ("lens", "halves"))
    torch.testing.assert_close((3 * halves[0] + 2 * halves[1]) / 5, J)


@pytest.mark.slow
def test_a_fit_begun_here_and_finished_by_two_workers_is_the_same_to_the_byte(
    config, stopped_at_row_45, tmp_path
):
    store = Store(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        run_or_load(config, store)
    two = run_or_load(replace(config, workers="2"), store)
    assert len(stopped_at_row_45) == 45, "the rest is made by others"
    assert files(two) == files(run_or_load(config, Store(tmp_path / "one")))
