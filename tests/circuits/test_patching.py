"""Activation patching on planted answers: what carries all of the gap, and what none of it."""

import pandas as pd
import pytest
import torch

from interp.circuits import figures_heads
from interp.circuits.patching import ALL, Cell, PatchConfig, patched
from interp.circuits.target import Target
from interp.cli.circuits_heads import moved
from interp.errors import UserError
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.runs.study import run_or_load

from ..conftest import make_model

PROMPTS = [[3, 14, 15, 92], [3, 27, 15, 93]]
TARGET = Target("t", torch.tensor([5, 9]), torch.tensor([1.0, -1.0]))


@pytest.fixture(scope="module", params=["llama", "gemma3_text", "gpt_neox"])
def subject(request):
    return open_subject(make_model(request.param).double(), dtype=torch.float64)


def values(subject, kind, cells):
    run, source = (subject.pad([ids]) for ids in PROMPTS)
    there = subject.capture(source, [f"*.{kind}"])
    own, other = (float(TARGET.value(subject.logits(batch))) for batch in (run, source))
    found = patched(subject, TARGET, run, there, cells, kind)
    return [(value - own) / (other - own) for value in found]


def test_the_whole_stream_carries_the_whole_gap(subject):
    last = subject.spec.n_layers - 1
    cells = [Cell(0, -1, ALL), Cell(last, -1, ALL), Cell(0, -1, 0), Cell(0, -1, 2)]
    moved = values(subject, "resid_pre", cells)
    assert moved[:2] == pytest.approx([1, 1], abs=1e-9)
    assert moved[2:] == pytest.approx([0, 0], abs=1e-9), "the same token stands there"


def test_the_last_position_carries_what_is_left_after_the_last_attention(subject):
    """`resid_mid` of the last layer: nothing is read from elsewhere any more."""
    if subject.spec.parallel:
        pytest.skip("no resid_mid in a parallel layer")
    last = subject.spec.n_layers - 1
    cells = [Cell(last, -1, 3), Cell(last, -1, 1), Cell(last, -1, ALL)]
    assert values(subject, "resid_mid", cells) == pytest.approx([1, 0, 1], abs=1e-9)


def test_a_cell_is_one_plain_hook(subject):
    """Heads too: against a pass with that head's values replaced by hand."""
    from interp.model.edits import Edit

    run, source = (subject.pad([ids]) for ids in PROMPTS)
    site = Site("head_z", 1)
    z = subject.capture(source, [site])[site]
    own, other = (float(TARGET.value(subject.logits(batch))) for batch in (run, source))
    for head, positions in ((2, slice(None)), (1, slice(3, 4))):

        def replace(x, head=head, positions=positions):
            changed = x.clone()
            changed[:, positions, head] = z[:, positions, head]
            return changed

        with subject.edited(Edit(site, replace)):
            expected = (float(TARGET.value(subject.logits(run))) - own) / (other - own)
        position = ALL if positions == slice(None) else 3
        cells = [Cell(0, 0, ALL), Cell(1, head, position)]
        assert values(subject, "head_z", cells)[1] == pytest.approx(expected, rel=1e-9)


def test_a_run(dog_model, own_home):
    words = {"prompt": "w3 dog w5", "counterfactual": "w3 w9 w6", "target": "dog", "against": "w7"}
    config = {**words, "batch_size": 2}
    run = run_or_load(PatchConfig(str(dog_model), **config))
    cells = run.table("cells")
    assert cells[["layer", "position"]].to_numpy().tolist() == [
        [layer, position] for layer in range(2) for position in range(3)
    ]
    assert cells["token"].tolist() == ["w3", "dog", "w5"] * 2
    assert cells["other"].tolist() == ["w3", "w9", "w6"] * 2
    own, gap = run.metrics["prompt"], run.metrics["gap"]
    assert run.metrics["target"] == "'dog' - 'w7'"
    assert gap == pytest.approx(own - run.metrics["counterfactual"])
    assert (own - cells["moved"] * gap).tolist() == pytest.approx(cells["value"].tolist())
    assert figures_heads.patched(cells).data[0].z.shape == (2, 3)
    back = run_or_load(PatchConfig(str(dog_model), **config, into="counterfactual", at="all"))
    assert back.metrics["gap"] == pytest.approx(gap), "as in circuits.truth"
    first = back.table("cells").iloc[0]
    assert (first["position"], first["moved"]) == (ALL, pytest.approx(1, abs=1e-4))
    heads = run_or_load(PatchConfig(str(dog_model), **words, site="head_z", at="-1"))
    assert set(heads.table("cells")["position"]) == {2}
    assert figures_heads.patched(heads.table("cells")).data[0].z.shape == (2, 4)


def test_all_positions_are_said_in_words(dog_model, own_home, capsys):
    """-1 is the last one, where it is asked for."""
    words = {"prompt": "w3 dog w5", "counterfactual": "w3 w9 w6", "target": "dog", "against": "w7"}
    for settings in ({"site": "head_z"}, {"at": "all"}):
        moved(run_or_load(PatchConfig(str(dog_model), **words, **settings)))
        printed = capsys.readouterr().out
        assert "all" in printed
        assert not {"-1"} & set(printed.split())


def test_heat_maps_tick_at_layers_and_heads(dog_model, own_home):
    words = {"prompt": "w3 dog w5", "counterfactual": "w3 w9 w6", "target": "dog", "against": "w7"}
    cells = run_or_load(PatchConfig(str(dog_model), **words, site="head_z")).table("cells")
    shown = figures_heads.patched(cells).layout
    assert list(shown.xaxis.tickvals) == [0, 1, 2, 3]
    assert list(shown.yaxis.tickvals) == [0, 1]
    many = pd.DataFrame([{"layer": n, "head": h, "s": 0.0} for n in range(2) for h in range(96)])
    assert list(figures_heads.roles(many, "s").layout.xaxis.tickvals) == list(range(0, 96, 3))


def test_an_observable_brings_its_tokens_and_its_prompts(dog_model, own_home, tmp_path):
    import yaml

    about = {
        "about": "a", "observable": {"dog": 1.0, "w7": -0.5}, "pair": ["w1 w2", "w3 w4"],
        "templates": ["w1 [WORD]"], "words": ["plural nouns", "singular nouns"],
    }  # fmt: skip
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(about))
    run = run_or_load(PatchConfig(str(dog_model), observable=str(path), at="all"))
    subject = open_subject(str(dog_model))
    values = [subject.logits(subject.tokens(text))[0, -1] for text in about["pair"]]
    for value, name in zip(values, ("prompt", "counterfactual"), strict=True):
        expected = float(value[123] - 0.5 * value[7])
        assert run.metrics[name] == pytest.approx(expected, rel=1e-4)
    assert run.manifest["prompts"] == about["pair"]
    own = PatchConfig(str(dog_model), "w1 w9", "w3 w9", observable=str(path))
    assert own.texts == ("w1 w9", "w3 w9")


def test_what_cannot_be_patched_is_known_before_the_model_is_opened(
    dog_model, own_home, monkeypatch
):
    monkeypatch.setattr("interp.model.subject.open_subject", None)
    for changes, says in (
        ({"prompt": "w1 w2"}, r"2 and 1 tokens.*\['w1', 'w2'\] and \['w3'\]"),
        ({"prompt": "w3"}, "are the same"),
        ({"prompt": ""}, "is empty"),
        ({"counterfactual": "  "}, "is empty"),
        ({"at": "some"}, "--at is each, all or a number"),
        ({"at": "7"}, "no position 7"),
        ({"site": "logits"}, "--site is one of"),
        ({"target": "w1 w2"}, "2 tokens"),
        ({"batch_size": 0}, "--batch-size"),
        ({"observable": "verb-number"}, "leave out --target"),
    ):
        given = {"prompt": "w1", "counterfactual": "w3", "target": "w5", "against": "w7"}
        with pytest.raises(UserError, match=says):
            run_or_load(PatchConfig(str(dog_model), **{**given, **changes}))
