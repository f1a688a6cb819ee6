"""Ratios of our work to the bare work, and the command that measures all of them."""

import json
import time
from pathlib import Path

import pytest

from interp.analyses import analyses, load
from interp.bench import machine, ratios
from interp.bench.kernels import KernelBenchConfig
from interp.cli import main
from interp.errors import UserError
from interp.timing import Pair, ratio_of, turns_of

PAGE = (Path(__file__).parents[2] / "docs" / "speed.md").read_text()
LISTED = {line.split(" | ")[0].strip("| ") for line in PAGE.splitlines() if line.startswith("|")}


def test_a_ratio_is_of_what_both_take():
    asleep = Pair("two", "one", "x", lambda: time.sleep(0.02), lambda: time.sleep(0.01))
    turns = turns_of(asleep, 5)
    assert len(turns) == 5
    found = ratio_of(asleep, turns)
    assert found.ratio == pytest.approx(2, rel=0.3)
    assert found.ratio_min <= found.ratio <= found.ratio_max
    assert found[:3] == ("x", "two", "one")


def test_they_take_turns_after_one_that_warms_up():
    ran = []
    turns_of(Pair("a", "b", "x", lambda: ran.append("a"), lambda: ran.append("b")), 3)
    assert "".join(ran) == "abbaabba"


def test_what_cannot_be_measured_says_why():
    def none(model):
        raise UserError(f"{model} has no lens")

    (row,) = ratios.of_analyses({"lens": none}, "llama", 1)
    assert row.missing == "llama has no lens"


def test_the_kernels_ratios_are_those_of_their_own_benchmark():
    config = KernelBenchConfig(d=32, vocabulary=300, rows=64, repeats=1, others=("topk",))
    found = {row.what: row for row in ratios.of_kernels(config)}
    assert found["own: torch, two topk, no statistics"].ratio > 0
    assert all(row.missing or row.ratio_min <= row.ratio <= row.ratio_max for row in found.values())
    assert not any("product" in what for what in found)


def test_the_machine_is_described(monkeypatch, tmp_path):
    about = machine.described()
    assert {"processor", "features", "cores", "threads", "versions"} <= about.keys()
    assert "torch" in about["versions"]
    assert all(about.values())


@pytest.mark.parametrize("name", ["directions", "obsprop"])
def test_it_is_measured_on_any_model(name, dog_model):
    pairs = load(analyses()[name].speeds)(str(dog_model))
    assert {pair.what for pair in pairs} <= LISTED
    for pair in pairs:
        assert f"[{pair.page}]({pair.page}.md)" in PAGE
        assert ratio_of(pair, turns_of(pair, 1)).ratio > 0


def test_steering_says_what_transformers_says(dog_model, monkeypatch):
    """Both sides make the same tokens, or their times would be of different work."""
    from interp.directions import speed
    from interp.model.subject import Subject, open_subject

    made = []
    kept = Subject.generate
    monkeypatch.setattr(Subject, "generate", lambda *args: made.append(kept(*args)) or made[-1])
    pair = speed.steering(open_subject(str(dog_model)), str(dog_model))
    pair.ours()
    assert made[0].shape[-1] == speed.NEW


def test_the_command(dog_model, capsys):
    asked = ("bench", "all", "--model", str(dog_model), "--only", "directions", "--repeats", "1")
    assert main([*asked, "--json"]) == 0
    made = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(made["metrics"]) == {"reading a stream", "24 new tokens, steered"}
    assert made["machine"]["threads"]
    assert main([*asked, "--markdown"]) == 0
    assert "| directions | reading a stream | " in capsys.readouterr().out
    assert main([*asked[:-3], "nothing"]) == 2
    assert "'nothing' has no speeds: give some of bench, " in capsys.readouterr().err
