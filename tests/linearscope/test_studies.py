"""The studies, from the command line to their tables, on networks with known answers."""

import json
import sys
from dataclasses import replace

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from interp.cli import main
from interp.directions import Directions
from interp.linearscope import explain
from interp.linearscope.explain import BiasConfig
from interp.linearscope.figures import token_contributions
from interp.linearscope.networks import open_network
from interp.linearscope.responses import SvdConfig
from interp.linearscope.sketch import SketchNet
from interp.linearscope.train_sketch import SketchConfig
from interp.runs import checkpoint
from interp.runs.store import Store, open_run
from interp.runs.study import plan, run_or_load

from ..figures import figure_names
from ..workers import by_copies

OWN = """
import torch
import torch.nn.functional as F

class Shift(torch.nn.Module):
    '''Copies its input from 3 pixels further down, and adds a template.'''
    def forward(self, x):
        return F.pad(x, (0, 0, 0, 3))[:, :, 3:] * 0.5 + 0.25

class Doubled(torch.nn.Module):
    '''Copies its input at twice the size.'''
    def forward(self, x):
        return F.interpolate(x, scale_factor=2)

class Cropped(torch.nn.Module):
    '''Copies the middle of its input.'''
    def forward(self, x):
        return x[:, :, 5:-5, 5:-5] * 1.0

class Odd(torch.nn.Module):
    def forward(self, x):
        return x[:, :, 5:] * 1.0

class Nothing(torch.nn.Module):
    def forward(self, x):
        return x * 0.0

class Random(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3))

    def forward(self, x):
        return self.layer(x)

class Classifier(torch.nn.Module):
    '''Scores: the mean of each colour, with biases of 1, 2, 3.'''
    def forward(self, x):
        return F.relu(x).mean((2, 3)) + torch.tensor([1.0, 2.0, 3.0])
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "planted.py").write_text(OWN)
    monkeypatch.delitem(sys.modules, "planted", raising=False)  # of another test's folder
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ran(capsys, *arguments):
    assert main(["linearscope", *arguments, "--json", "--out", "run"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])["metrics"]


def test_explain_finds_planted_votes_and_biases(own, capsys):
    metrics = ran(capsys, "explain", "--model", "planted:Classifier", "--size", "16")
    table = pd.read_parquet("run/classes.parquet").set_index("class")
    assert table["r"].to_dict() == pytest.approx({0: 1, 1: 2, 2: 3})
    assert metrics["largest error of votes + r"] < 1e-5
    red = table.loc[0]
    assert red["share"] == pytest.approx(1 / (1 + red["votes"]))
    layers = pd.read_parquet("run/layers.parquet").set_index("class")
    assert layers["value"].to_dict() == pytest.approx({0: 1, 1: 2, 2: 3})
    assert figure_names(open_run("run")) == {"votes"}


def test_bias_over_pictures(own, capsys):
    pictures = ["moon", "chelsea", "coffee"]
    metrics = ran(capsys, "bias", "--model", "planted:Classifier", "--images", *pictures)
    table = pd.read_parquet("run/pictures.parquet")
    assert list(table["picture"]) == pictures
    assert metrics["share, median"] == pytest.approx(table["share"].median())
    assert figure_names(open_run("run")) == {"shares"}


def test_pictures_begun_here_and_finished_by_two_workers_are_the_same(own, monkeypatch):
    config = BiasConfig(model="planted:Classifier", images=("moon", "chelsea", "coffee"))
    plain, made = explain.layer_table, []

    def stopping(system, classes):
        if made:
            raise KeyboardInterrupt
        made.append(classes)
        return plain(system, classes)

    monkeypatch.setattr(explain, "layer_table", stopping)
    with pytest.raises(KeyboardInterrupt):
        run_or_load(config, Store(own / "two"))
    monkeypatch.setattr(explain, "layer_table", plain)
    with by_copies():
        two = run_or_load(replace(config, workers="2"), Store(own / "two"))
    one = run_or_load(config, Store(own / "one"))
    assert two.manifest["files"] == one.manifest["files"]
    assert list(one.table("layers")["picture"].unique()) == ["moon", "chelsea", "coffee"]


def test_impulse_measures_a_planted_shift(own, capsys):
    metrics = ran(capsys, "impulse", "--model", "planted:Shift", "--size", "32", "--at", "8,9")
    (line,) = pd.read_parquet("run/places.parquet").to_dict("records")
    assert (line["from_y"], line["from_x"]) == pytest.approx((11, 9))
    assert line["displacement"] == pytest.approx(3)
    assert line["r"] == pytest.approx(0.25)
    assert metrics["displacement, median"] == pytest.approx(3)
    assert 0 < metrics["share of r"] < 1


@pytest.mark.parametrize("name", ["Doubled", "Cropped"])
def test_a_copy_of_another_size_displaces_nothing(name, own, capsys):
    metrics = ran(capsys, "impulse", "--model", f"planted:{name}", "--size", "32")
    assert metrics["places with a row"] == metrics["places"] == 9
    assert metrics["displacement, largest"] < 0.6
    found = load_file("run/responses.safetensors")
    for row, column in zip(found["rows"], found["columns"], strict=True):
        assert row.abs().max() == column.abs().max() == 1, "the column is of the pixel there"


def test_rows_of_zeros_are_counted(own, capsys):
    metrics = ran(capsys, "impulse", "--model", "planted:Nothing", "--size", "16")
    assert metrics["places"] == 9
    assert metrics["places with a row"] == 0
    assert metrics["displacement, median"] is metrics["share of r"] is None


def test_code_and_weights_of_ones_own_network_decide_its_run(own):
    config = SvdConfig(model="planted:Random", size=16, k=2)
    first = plan(config)["key"]
    values = [run_or_load(config, Store(own / part)).metrics for part in ("a", "b")]
    assert values[0] == values[1], "random weights are those of seed 0"
    (own / "planted.py").write_text(OWN.replace("self.layer(x)", "2 * self.layer(x)"))
    assert plan(config)["key"] != first


def test_the_sketch_network_takes_weights_of_ones_own(own):
    torch.manual_seed(3)
    save_file(SketchNet().state_dict(), own / "mine.safetensors")
    shipped = SvdConfig(model="sketch", size=16, k=2)
    mine = replace(shipped, weights="mine.safetensors")
    assert plan(mine)["key"] != plan(shipped)["key"]
    found = [run_or_load(c, Store(own / "runs")).metrics["share of r"] for c in (mine, shipped)]
    assert found[0] != pytest.approx(found[1], rel=1e-3)


def test_svd_of_a_planted_shift(own, capsys):
    metrics = ran(capsys, "svd", "--model", "planted:Shift", "--size", "8", "--k", "4")
    values = pd.read_parquet("run/values.parquet")["value"]
    assert values.tolist() == pytest.approx([0.5] * 4)
    assert metrics["effective rank"] == pytest.approx(3 * 5 * 8, rel=0.05)
    assert metrics["largest residual"] < 1e-4


def test_tokens_with_one_text_are_told_apart(own, capsys):
    """Parts of characters, all shown as one mark."""
    ran(capsys, "tokens", "--prompt", "ありがとう", "--site", "28.resid_post")
    tokens, logits = (pd.read_parquet(f"run/{name}.parquet") for name in ("tokens", "logits"))
    assert logits["logit"].nunique() == 3
    token_contributions(tokens)


def test_tokens_are_directions(model_folder, own, capsys, monkeypatch):
    found = ran(capsys, "tokens", "--prompt", "The cat sat on", "--site", "20.resid_post",
                "--words", " the", " a", "--against", " my")  # fmt: skip
    assert found["largest error"] < 1e-3
    tokens = pd.read_parquet("run/tokens.parquet")
    logits = pd.read_parquet("run/logits.parquet").set_index("logit")
    sums = tokens.groupby("logit")["contribution"].sum()
    torch.testing.assert_close(
        torch.tensor((sums + logits["r"]).to_numpy()),
        torch.tensor(logits.loc[sums.index, "value"].to_numpy()), rtol=0, atol=1e-3,
    )  # fmt: skip
    rows = Directions.load(own / "run" / "directions")
    assert len(rows) == len(tokens) == 8
    assert str(rows.site) == "20.resid_post"


def test_a_short_training_of_the_sketches(own, capsys):
    first = ran(capsys, "sketch", "--steps", "3", "--crop", "16", "--batch", "2")
    assert first["loss of the last tenth"] > 0
    assert set(pd.read_parquet("run/held.parquet")["picture"]) == {"cat", "flower"}


def test_a_training_that_was_stopped_goes_on(tmp_path, monkeypatch):
    for name in ("SECONDS", "SHARE"):
        monkeypatch.setattr(checkpoint, name, 0)
    config, steps, crops = SketchConfig(steps=5, crop=16, batch=2), [], SketchConfig._crops
    stop_at = -1

    def counted(self, pictures, step):
        steps.append(step)
        if step == stop_at:
            raise KeyboardInterrupt
        return crops(self, pictures, step)

    monkeypatch.setattr(SketchConfig, "_crops", counted)
    whole = run_or_load(config, Store(tmp_path / "whole"))
    stop_at = 3
    with pytest.raises(KeyboardInterrupt):
        run_or_load(config, Store(tmp_path / "stopped"))
    stop_at = -1
    steps.clear()
    made = run_or_load(config, Store(tmp_path / "stopped"))
    assert steps == [3, 4]
    assert made.manifest["files"] == whole.manifest["files"]
    assert made.metrics == whole.metrics


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explain", "--model", "sketch"], "no classifier"),
        (["explain", "--image", "none.png"], "no picture"),
        (["explain", "--size", "100"], "takes 224"),
        (["explain", "--classes", "0"], "--classes must be at least 1, not 0"),
        (["svd", "--size", "4"], "must be 0 or 8 to 512, not 4"),
        (["svd", "--model", "nothing"], "no network"),
        (["impulse", "--at", "a,b"], "is no pixel"),
        (["impulse", "--at", "900,3"], "no pixel 900,3"),
        (["impulse", "--model", "efficientnet-lite0"], "makes no picture"),
        (["tokens", "--prompt", ""], "prompt is empty"),
        (["tokens", "--site", "3.nothing"], "nothing"),
        (["sketch", "--crop", "7"], "multiple of 4"),
        (["sketch", "--crop", "128"], "from 16 to 96"),
        (["impulse", "--model", "planted:Odd", "--size", "32"], "an output of 27 x 32 cannot"),
        (["svd", "--model", "planted:Nothing", "--size", "8", "--k", "2"], "A is 0, so it has no"),
        (["svd", "--model", "waifu2x", "--weights", "x"], "has its own weights"),
        (["svd", "--model", "waifu2x", "--size", "12"], "fails on 12 x 12 pixels"),
        (["svd", "--model", ":X"], "cannot make the network :X"),
        (["svd", "--model", "sketch", "--weights", "nowhere"], "nowhere"),
        (["svd", "--device", "nonsense"], "device 'nonsense' cannot be used"),
    ],
)
def test_mistakes_are_one_line(own, capsys, arguments, message):
    assert main(["linearscope", *arguments, "--out", "run"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error


def test_a_network_of_ones_own_shadows_no_installed_module(tmp_path, monkeypatch):
    """Its folder comes last on the import path: a file there takes no other module's place."""
    (tmp_path / "wave.py").write_text("raise RuntimeError('the file in the current folder ran')")
    own = "import wave\nfrom torch import nn\nclass Net(nn.Conv2d):\n"
    own += "    def __init__(self):\n        super().__init__(3, 3, 1)\n"
    (tmp_path / "beside_wave.py").write_text(own)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    before = list(sys.path)
    assert open_network("beside_wave:Net").kind == "image"
    assert sys.path == before
