"""The planted model and what the tests make of it, once a session."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from interp.knob.finetune import FinetuneConfig
from interp.knob.learn import LearnConfig
from interp.knob.prompts import Prompter, rows_of
from interp.model.prompting import Prompting
from interp.model.subject import Subject
from interp.runs.store import Run, usual_store
from interp.runs.study import run_or_load
from interp.runs.writer import RunWriter

from .planted import ANSWERS, SUBJECTS, items, planted, save, tokenizer

SWITCH = 1
"""The planted model's switch layer."""


@pytest.fixture(scope="session")
def prompter() -> Prompter:
    return Prompter(Prompting(tokenizer()), template="plain")


@pytest.fixture(scope="session")
def subject(prompter: Prompter) -> Subject:
    length = len(prompter.ids(rows_of(items())[0]))
    return planted(3, range(SWITCH, SWITCH + 1), length)


@pytest.fixture(scope="session")
def folder(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(subject, tmp_path_factory.mktemp("planted") / "model")


@pytest.fixture(scope="session")
def data_settings(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Data of the planted model: its facts under two relations' names, one held out."""
    path = tmp_path_factory.mktemp("facts") / "facts.json"
    pairs = dict(zip(SUBJECTS, ANSWERS, strict=True))
    relation = {"query": "The capital of {} is", "facts": pairs}
    path.write_text(json.dumps({"relations": {"capital": relation, "town": relation}}))
    return {"model": str(folder), "facts": str(path), "draws": 7}


@pytest.fixture(scope="session")
def settings(data_settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of studies that ask it."""
    return {**data_settings, "template": "plain", "only_known": False}


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where runs of `knob.data` are kept that other studies ask for."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(autouse=True)
def own_runs(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERP_RUNS", str(stored))


@pytest.fixture(scope="session")
def adapter_run(
    settings: dict[str, Any], stored: Path, tmp_path_factory: pytest.TempPathFactory
) -> RunWriter:
    """A training that nothing stopped."""
    out = RunWriter(tmp_path_factory.mktemp("trained"), {})
    with usual_store(stored):
        training(settings).train(out)
    return out


def training(settings: dict[str, Any]) -> FinetuneConfig:
    return FinetuneConfig(
        **settings, rows=32, batch=8, rank=2, lr=0.1, bfloat16=False, checkpoint=2
    )


@pytest.fixture(scope="session")
def learned_run(
    settings: dict[str, Any], stored: Path, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    config = LearnConfig(
        **settings, adapter="none", layers=(SWITCH,), learn_items=40, knob_lr=0.2, validate=6,
        steer_items=6, separate_items=4, text_tokens=128,
    )  # fmt: skip
    with usual_store(stored):
        return run_or_load(config, out=tmp_path_factory.mktemp("learned") / "run")
