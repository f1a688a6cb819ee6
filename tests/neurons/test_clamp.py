"""Clamping: a planted switch, no-ops, and the mistakes one can make."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

from interp.cli import main
from interp.errors import UserError
from interp.model.neuron import parse_neuron
from interp.neurons import search
from interp.neurons.atlas import AtlasConfig
from interp.neurons.clamp import ClampConfig
from interp.neurons.figures import clamp_curve
from interp.runs.study import run_or_load

from ..workers import assert_same_by_two


def config(dog_model, **changes):
    plain = {"neuron": "1.down.17", "prompt": ("w1 w2 w3",), "chat": False, "tokens": 3}
    return ClampConfig(model=str(dog_model), **{**plain, **changes})


@pytest.mark.parametrize("change", [{"neuron": "dog"}, {"prompt": ("",)}, {"value": ()}])
def test_what_is_wrong_of_any_model_is_refused_before_it_is_looked_for(change):
    with pytest.raises(UserError):
        ClampConfig(model="nowhere", **change)


def test_planted_neuron_says_its_word(dog_model, own_home):
    run = run_or_load(config(dog_model, value=(0.0, 5.0, 50.0)))
    assert run.manifest["word"] == "dog"
    assert run.metrics["probability_before"] < 0.1
    assert run.metrics["probability_best"] > 0.99
    assert run.metrics["value_best"] == 50.0
    rows = run.table("curve/values")
    assert rows["text"].iloc[-1] == "dogdogdog"
    assert list(rows["probability"].iloc[1:]) == sorted(rows["probability"].iloc[1:])


def test_several_prompts_have_an_interval_and_one_has_none(dog_model, own_home):
    prompts, values = ("w1 w2 w3", "w4", "w9 w8", "w7"), (0.0, 5.0)
    asked = config(dog_model, prompt=prompts, value=values)
    run = run_or_load(asked)
    assert_same_by_two(asked, run, own_home / "others")
    rows, means = run.table("curve/values"), run.table("curve/means")
    assert means["value"].isna().tolist() == [True, False, False]
    assert set(means["n"]) == {4}
    assert set(means["unit"]) == {"prompt"}
    alone = run_or_load(config(dog_model, prompt=prompts[2:3], value=values))
    pd.testing.assert_frame_equal(
        rows[rows["prompt"] == "w9 w8"].reset_index(drop=True), alone.table("curve/values")
    )
    at = rows[rows["value"] == 5.0]["logprob"].to_numpy()
    row = means[means["value"] == 5.0].iloc[0]
    assert row["logprob"] == pytest.approx(at.mean())
    drawn = np.random.default_rng(1).choice(at, (4000, 4)).mean(1)
    ends = np.quantile(drawn, [0.025, 0.975])
    np.testing.assert_allclose(row[["logprob_low", "logprob_high"]].astype(float), ends, atol=0.2)
    single = alone.table("curve/means")
    assert single[["logprob_low", "probability_high"]].isna().all(axis=None)
    assert set(single["n"]) == {1}
    bars = clamp_curve(means, "1.down.17", "dog").data[0].error_y
    np.testing.assert_allclose(bars.array, (means["probability_high"] - means["probability"])[1:])
    assert clamp_curve(single, "1.down.17", "dog").data[0].error_y.array is None


def test_without_a_chat_template_it_is_refused_before_the_model_loads(
    dog_model, own_home, monkeypatch
):
    from interp.model import subject

    monkeypatch.setattr(subject, "open_subject", None)
    with pytest.raises(UserError, match="has no chat template, .* give --no-chat"):
        run_or_load(config(dog_model, chat=True))
    assert main(["directions", "steer", "1.down.17", "--prompt", "w1", "--model", str(dog_model)])


def test_clamping_to_its_own_value_changes_nothing(dog_model, own_home):
    first = run_or_load(config(dog_model, value=(0.0,)))
    own = first.table("curve/activation")["activation"].iloc[-1]
    run = run_or_load(config(dog_model, value=(own,), where="last", tokens=1))
    rows = run.table("curve/values")
    assert rows["probability"].iloc[0] == rows["probability"].iloc[1]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"neuron": "1.down.48"}, "no 1.down.48 in .*: layers 0..1, neurons 0..47"),
        ({"neuron": "dog"}, "names no neuron"),
        ({"prompt": ("  ",)}, "the prompt is empty"),
        ({"prompt": "w1"}, "as a list"),
        ({"prompt": ("w1", "w1")}, "two of the prompts are the same"),
        ({"value": ()}, "at least one --value"),
        ({"value": (1.0, 1.0)}, "two of the values are the same"),
        ({"value": (1.0, float("nan"))}, "needs finite numbers"),
        ({"word": "zebra"}, "no single token stands for 'zebra'"),
        ({"chat": True}, "has no chat template, as base models have none: give --no-chat"),
    ],
)
def test_mistakes(changes, says, dog_model, own_home):
    with pytest.raises(UserError, match=says):
        run_or_load(config(dog_model, **changes))


def test_command(dog_model, own_home, capsys):
    options = ["--model", str(dog_model), "--neuron", "1.down.17", "--prompt", "w1", "--no-chat"]
    options += ["--value", "-5", "50", "--tokens", "2"]
    assert main(["neurons", "clamp", *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["word"] == "dog"
    assert main(["neurons", "clamp", *options]) == 0
    printed = capsys.readouterr().out
    assert "dogdog" in printed
    assert "One prompt has no interval" in printed
    options[5:6] = ["w1", "w2"]
    assert main(["neurons", "clamp", *options]) == 0
    assert "probability_low" in capsys.readouterr().out


@pytest.mark.parametrize("family", ["gemma2", "llama"])
def test_the_default_word_is_the_atlas_s_first_token(family, model_folder, own_home):
    folder = str(model_folder(family))
    atlas = run_or_load(AtlasConfig(model=folder, k=4))
    for name in [
        f"{layer}.{kind}.{n}" for layer in (0, 1) for kind in ("up", "down") for n in (3, 9)
    ]:
        best = search.show(atlas, name).sort_values("z").iloc[-1]
        own = ClampConfig(model=folder, neuron=name)
        assert own._first_token(parse_neuron(name)) == best["tokens"][0]


def test_a_neuron_of_zeros_has_no_word(dog_model, own_home, tmp_path):
    folder = tmp_path / "zero"
    shutil.copytree(dog_model, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"][:, 17] = 0
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="1.down.17 is a vector of zeros, .*: give --word"):
        run_or_load(config(folder))
