"""The grid of a prompt against plain transformers."""

import pytest
import torch

from interp.cli import parse
from interp.errors import UserError
from interp.lens import figures
from interp.lens.files import export
from interp.lens.grid import ShowConfig
from interp.lens.lens import Lens
from interp.model.weights import open_weights
from interp.runs.study import run_or_load


@pytest.fixture(scope="module")
def plain(dog_model):
    """transformers' hidden states and log-probabilities of 'w3 dog w5'."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(dog_model, dtype=torch.float64)
    with torch.no_grad():
        out = model(torch.tensor([[3, 123, 5]]), output_hidden_states=True)
        first = model.lm_head(model.model.norm(out.hidden_states[1]))
    return out.hidden_states[1][0], first[0].log_softmax(-1), out.logits[0].log_softmax(-1), model


def test_cells_are_the_plain_model_s(dog_model, own_home, plain):
    _, first, last, _ = plain
    run = run_or_load(ShowConfig(str(dog_model), prompt="w3 dog w5", k=3))
    cells = run.table("cells")
    assert cells["token"].tolist()[:3] == ["w3", "dog", "w5"]
    for layer, read in ((0, first), (1, last)):
        rows = cells[cells["layer"] == layer]
        expected = torch.nn.functional.kl_div(read, last, log_target=True, reduction="none").sum(1)
        torch.testing.assert_close(
            torch.tensor(rows["kl"].tolist()).double(), expected, rtol=1e-3, atol=1e-6
        )
        entropy = torch.distributions.Categorical(logits=read).entropy()
        assert rows["entropy"].tolist() == pytest.approx(entropy.tolist(), rel=1e-4)
        assert rows["p"].tolist() == pytest.approx(read.exp().max(1).values.tolist(), rel=1e-3)
        names = [
            [f"w{i}" if i != 123 else "dog" for i in row] for row in read.topk(3).indices.tolist()
        ]
        assert [list(tops) for tops in rows["tops"]] == names
    for shade in figures.SHADES:
        assert figures.grid(cells, shade).data[0].z.shape == (2, 3)


def test_what_is_printed(dog_model, own_home, plain, tmp_path, capsys):
    _, first, last, _ = plain
    words = ["--model", str(dog_model), "--runs", str(tmp_path)]
    parse(["lens", "show", "w3 dog w5", *words])()
    printed = capsys.readouterr().out
    assert "Read through the logit lens" in printed
    lines = [line.split() for line in printed.splitlines()]
    assert lines.count(["after", "layer", "said", "p", "entropy", "kl"]) == 1
    assert sum(line[:2] == ["after", "layer"] for line in lines) == 2
    said, kl = first[-1].argmax(), (last[-1].exp() * (last[-1] - first[-1])).sum()
    entropy = -(first[-1].exp() * first[-1]).sum()
    row = next(line for line in reversed(lines) if line[:1] == ["0"])
    assert row[1] == f"w{said}"
    expected = [float(first[-1].max().exp()), float(entropy), float(kl)]
    assert [float(each) for each in row[2:]] == pytest.approx(expected, rel=0.01)
    metric = next(line for line in lines if line[:1] == ["largest"])
    assert metric[:-1] == ["largest", "kl", "after", "the", "last", "layer"]
    assert abs(float(metric[-1])) < 1e-6


def test_cells_through_a_fitted_lens(dog_model, own_home, plain, tmp_path):
    x, _, _, model = plain
    weights = open_weights(str(dog_model))
    width = weights.spec.d_model
    J = torch.randn(width, width, generator=torch.Generator().manual_seed(1))
    path = tmp_path / "lens.pt"
    export(Lens(weights, "jacobian", {0: J}, 3), path)
    run = run_or_load(ShowConfig(str(dog_model), prompt="w3 dog w5", lens=str(path)))
    with torch.no_grad():
        expected = model.lm_head(model.model.norm(x @ J.double().T)).log_softmax(-1).exp().max(1)
    rows = run.table("cells").query("layer == 0")
    assert rows["p"].tolist() == pytest.approx(expected.values.tolist(), rel=1e-3)


def test_what_cannot_be_shown(dog_model, own_home):
    for changes, says in (
        ({"prompt": ""}, "empty"),
        ({"lens": "raw"}, "--lens final"),
        ({"k": 0}, "--k must be 1 to 211, not 0"),
        ({"k": 212}, "--k must be 1 to 211, not 212"),
    ):
        with pytest.raises(UserError, match=says):
            run_or_load(ShowConfig(str(dog_model), **changes))


def test_a_run_through_another_lens_is_not_offered(dog_model, own_home):
    """Where no lens is stored, only a run of the very same settings may be named instead."""
    run_or_load(ShowConfig(str(dog_model), prompt="w3 dog w5"))
    with pytest.raises(UserError, match="no jacobian lens") as raised:
        run_or_load(ShowConfig(str(dog_model), prompt="w3 dog w5", lens="jacobian"))
    assert "a run of these settings" not in str(raised.value)
