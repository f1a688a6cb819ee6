"""Clamping: a planted switch, no-ops, and the mistakes one can make."""

import json

import pytest

from interp.cli import main
from interp.errors import UserError
from interp.neurons.clamp import ClampConfig
from interp.runs.study import run_or_load


def config(dog_model, **changes):
    plain = {"neuron": "1.down.17", "prompt": ("w1 w2 w3",), "chat": False, "tokens": 3}
    return ClampConfig(model=str(dog_model), **{**plain, **changes})


def test_planted_neuron_says_its_word(dog_model, own_home):
    run = run_or_load(config(dog_model, value=(0.0, 5.0, 50.0)))
    assert run.manifest["word"] == "dog"
    assert run.metrics["probability_before"] < 0.1
    assert run.metrics["probability_best"] > 0.99
    assert run.metrics["value_best"] == 50.0
    rows = run.table("curve/values")
    assert rows["text"].iloc[-1] == "dogdogdog"
    assert list(rows["probability"].iloc[1:]) == sorted(rows["probability"].iloc[1:])


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
        ({"value": (1.0, float("nan"))}, "needs finite numbers"),
        ({"word": "zebra"}, "no single token stands for 'zebra'"),
        ({"chat": True}, "has no chat template.* give --no-chat"),
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
    assert "dogdog" in capsys.readouterr().out
