"""The Jacobian lens against derivatives by brute force, and as a study that is stopped."""

import pytest
import torch

from interp.lens import fitting
from interp.lens.fit import FitConfig
from interp.lens.fitting import layers_table
from interp.lens.jacobian import prompt_rows
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


def test_rows_from_some_row_on_are_the_same(subject):
    rows = [list(range(LENGTH))]
    whole = dict(prompt_rows(subject, rows, SKIP))
    for i, row in prompt_rows(subject, rows, SKIP, first=20):
        assert torch.equal(row, whole[i])


def test_agreement_is_one_for_equal_halves():
    one = torch.randn(3, 5, 5, dtype=torch.float64)
    table = layers_table(one, torch.stack([one, 2 * one]))
    assert table["agreement"].tolist() == pytest.approx([1, 1, 1])
    assert table["trace"].tolist() == pytest.approx([float(j.trace()) / 5 for j in one])


def test_a_stopped_fit_goes_on_where_it_was(dog_model, tmp_path, monkeypatch):
    text = tmp_path / "text.jsonl"
    words = [
        '{"text": "' + " ".join(f"w{(7 * d + i) % 200}" for i in range(40)) + '"}' for d in range(5)
    ]
    text.write_text("\n".join(words))
    config = FitConfig(str(dog_model), corpus=str(text), prompts=5, length=12, skip=2, batch_size=2)
    whole = run_or_load(config, Store(tmp_path / "whole"))
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", 0)
    asked = []

    def stopping(*arguments):
        for i, row in prompt_rows(*arguments):
            asked.append(i)
            if len(asked) == 45:
                raise KeyboardInterrupt
            yield i, row

    monkeypatch.setattr(fitting, "prompt_rows", stopping)
    store = Store(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        run_or_load(config, store)
    again = run_or_load(config, store)
    for name in ("lens.safetensors", "halves.safetensors", "layers.parquet"):
        assert again.manifest["files"][name] == whole.manifest["files"][name]
    assert len(asked) == 3 * 32 + 1  # the row that was stopped at comes again
    assert whole.metrics["prompts"] == 5
