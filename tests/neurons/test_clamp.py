"""Clamping: a planted switch, no-ops, and the mistakes one can make."""

import json
import shutil

import pandas as pd
import pytest
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from interp.cli import main
from interp.errors import UserError
from interp.neurons.clamp import ClampConfig
from interp.runs.study import run_or_load


@pytest.fixture(scope="module")
def folder(model_folder, tmp_path_factory):
    """A llama whose neuron 1.down.17 writes the word 'dog', with a word-level tokenizer."""
    folder = tmp_path_factory.mktemp("clamp") / "model"
    shutil.copytree(model_folder("llama"), folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] *= 50  # so that the normalised stream can make up its mind
    target = tensors["lm_head.weight"][123]
    tensors["model.layers.1.mlp.down_proj.weight"][:, 17] = 10 * target / target.norm()
    save_file(tensors, folder / "model.safetensors")
    words = {f"w{i}": i for i in range(211)}
    words = {("dog" if i == 123 else word): i for word, i in words.items()}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0").save_pretrained(folder)
    return folder


def config(folder, **changes):
    plain = {"neuron": "1.down.17", "prompt": "w1 w2 w3", "chat": False, "tokens": 3}
    return ClampConfig(model=str(folder), **{**plain, **changes})


def test_planted_neuron_says_its_word(folder, own_home):
    run = run_or_load(config(folder, value=(0.0, 5.0, 50.0)))
    assert run.manifest["word"] == "dog"
    assert run.metrics["probability_before"] < 0.1
    assert run.metrics["probability_best"] > 0.99
    assert run.metrics["value_best"] == 50.0
    rows = pd.read_parquet(run.path / "curve" / "values.parquet")
    assert rows["text"].iloc[-1] == "dogdogdog"
    assert list(rows["probability"].iloc[1:]) == sorted(rows["probability"].iloc[1:])


def test_clamping_to_its_own_value_changes_nothing(folder, own_home):
    first = run_or_load(config(folder, value=(0.0,)))
    own = pd.read_parquet(first.path / "curve" / "activation.parquet")["activation"].iloc[-1]
    run = run_or_load(config(folder, value=(own,), where="last", tokens=1))
    rows = pd.read_parquet(run.path / "curve" / "values.parquet")
    assert rows["probability"].iloc[0] == rows["probability"].iloc[1]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"neuron": "1.down.48"}, "no 1.down.48 in .*: layers 0..1, neurons 0..47"),
        ({"neuron": "dog"}, "names no neuron"),
        ({"prompt": "  "}, "the prompt is empty"),
        ({"value": ()}, "at least one --value"),
        ({"value": (1.0, float("nan"))}, "needs finite numbers"),
        ({"word": "zebra"}, "no single token stands for 'zebra'"),
        ({"chat": True}, "has no chat template"),
    ],
)
def test_mistakes(changes, says, folder, own_home):
    with pytest.raises(UserError, match=says):
        run_or_load(config(folder, **changes))


def test_command(folder, own_home, capsys):
    options = ["--model", str(folder), "--neuron", "1.down.17", "--prompt", "w1", "--no-chat"]
    options += ["--value", "-5", "50", "--tokens", "2"]
    assert main(["neurons", "clamp", *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["word"] == "dog"
    assert main(["neurons", "clamp", *options]) == 0
    assert "dogdog" in capsys.readouterr().out
