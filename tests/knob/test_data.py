"""The data of the knob's studies: what is refused early, and what a stopped run keeps."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from interp.cli import main
from interp.errors import UserError
from interp.knob import data, evaluate
from interp.knob.data import DataConfig
from interp.knob.finetune import FinetuneConfig
from interp.knob.learn import LearnConfig
from interp.knob.run import RunConfig
from interp.knob.search import SearchConfig
from interp.runs.store import open_run
from interp.runs.study import run_or_load
from interp.runs.writer import RunWriter


@pytest.mark.parametrize("held", [("capitol",), ("capital", "capitol")])
def test_a_held_relation_that_is_not_there_is_named(held):
    with pytest.raises(UserError, match="no relation capitol in this set; it has capital, "):
        DataConfig(held=held).check()


def test_held_relations_that_are_there_and_the_default_pass(tmp_path):
    DataConfig(held=("language",)).check()
    DataConfig(held=()).check()
    DataConfig(kind="two-hop", held=("capital of a city",)).check()
    own = tmp_path / "own.json"
    own.write_text(
        json.dumps({"relations": {"a": {"query": "{} is", "facts": {"x": "1", "y": "2"}}}})
    )
    for config in (DataConfig(kind="two-hop"), DataConfig(kind="arithmetic")):
        config.check()
    DataConfig(facts=str(own)).check()


def test_a_table_that_is_not_there_is_an_error_for_the_user(monkeypatch, tmp_path):
    from interp.model import weights

    monkeypatch.setattr(weights, "open_weights", lambda model: Weights())
    with pytest.raises(UserError, match="cannot read /nope.json"):
        DataConfig(facts="/nope.json").fingerprints()
    with pytest.raises(UserError, match="cannot read"):
        DataConfig(facts=str(tmp_path)).fingerprints()
    made = DataConfig(facts="/nope.json", kind="arithmetic")
    made.check()
    assert made.fingerprints() == {"model": "hash", "tokenizer": "of a folder without one"}
    assert set(DataConfig().fingerprints()) == {"model", "tokenizer", "facts"}


class Weights:
    folder = Path()

    def fingerprints(self):
        return {"model": "hash", "tokenizer": "of a folder without one"}


def test_a_stopped_run_asks_no_finished_fact_again(data_settings, tmp_path, monkeypatch, capsys):
    """Of 16 facts, 4 a piece, the model is stopped at the second draw of the third piece."""
    asked: list[str] = []

    def batches(subject, prompts, size, label):
        texts = [subject.text(torch.tensor(ids)) for ids in prompts]
        asked.extend(texts)
        yield list(range(len(texts))), texts

    def answers(subject, texts):
        """The model knows the towns with an even number."""
        lands = [text.rpartition("land")[2].removesuffix("is") for text in texts]
        return [f"town{land}" if int(land) % 2 == 0 else "" for land in lands]

    monkeypatch.setattr(evaluate, "cached_batches", batches)
    monkeypatch.setattr(evaluate, "answer_texts", answers)
    monkeypatch.setattr(data, "PIECE", 4)
    whole = run_or_load(DataConfig(**data_settings), out=tmp_path / "whole")
    assert set(whole.table("data/items").query("known")["subject"]) == {
        f"land{i}" for i in (0, 2, 4, 6)
    }
    every, asked[:] = list(asked), []
    first_of_third_piece = 2 * (4 + 2 + 2)

    def stopped(subject, texts):
        if len(asked) > first_of_third_piece + 4:
            raise KeyboardInterrupt
        return answers(subject, texts)

    options = ["--model", data_settings["model"], "--facts", data_settings["facts"], "--draws", 7]
    command = ["knob", "data", *options, "--out", tmp_path / "stopped"]
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "answer_texts", stopped)
        assert main(command) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("interp: interrupted; the same command resumes with 2 finished files")
    asked[:] = []
    assert main(command) == 0
    assert asked == every[first_of_third_piece:]
    run = open_run(tmp_path / "stopped")
    assert run.manifest["files"] == whole.manifest["files"]
    assert not list(run.path.rglob(".*.pieces"))


def test_what_a_model_knows_is_asked_once_for_all_templates(settings, monkeypatch, tmp_path):
    """The run of `knob.data` is every other study's data, whatever the prompts look like."""
    made: list[str] = []
    known = evaluate.known_keys

    def counted(*args, **kwargs):
        made.append("asked")
        return known(*args, **kwargs)

    monkeypatch.setattr(evaluate, "known_keys", counted)
    monkeypatch.setenv("INTERP_RUNS", str(tmp_path / "runs"))
    tables = [
        FinetuneConfig(**settings | {"template": template, "only_known": only}).table(
            RunWriter(tmp_path / f"{template} {only}", {})
        )
        for template, only in (("plain", False), ("chat", True))
    ]
    assert tables[0].equals(tables[1])
    assert made == ["asked"]
    assert {"template", "only_known"} & {f.name for f in fields(DataConfig)} == set()


@pytest.mark.parametrize("study", [FinetuneConfig, SearchConfig, LearnConfig, RunConfig])
def test_a_model_without_a_chat_template_is_refused_before_any_work(study, settings, tmp_path):
    own = {} if study in (FinetuneConfig, RunConfig) else {"adapter": "none"}
    config = study(**settings | {"template": "chat"}, **own)
    with pytest.raises(UserError, match="has no chat template.* give --template plain"):
        run_or_load(config, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_steering_without_a_chat_template_names_the_option(data_settings, capsys):
    model = ["--model", data_settings["model"]]
    assert main(["knob", "steer", *model, "--adapter", "none"]) == 2
    assert "give --template plain" in capsys.readouterr().err
    assert main(["directions", "steer", "0.down.1", *model, "--prompt", "The"]) == 2
    assert "give --no-chat" in capsys.readouterr().err
