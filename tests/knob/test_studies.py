"""The studies on the planted model: training resumes, adapters fit, the chain's parts are whole."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

from interp.errors import UserError
from interp.knob.adapter import adapter_folder, merged
from interp.knob.data import DataConfig, some, splits_of
from interp.knob.finetune import CHECKPOINT, FinetuneConfig, Training, completion_loss, rate_at
from interp.knob.learn import LearnConfig
from interp.knob.live import SteerConfig, default_values, pick, read_knob
from interp.knob.prompts import Prompter, rows_of
from interp.knob.search import SearchConfig, ranged
from interp.runs.store import RunWriter
from interp.runs.study import run_or_load

from .planted import ANSWERS, SUBJECTS, items, planted, save, tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    prompter = Prompter(tokenizer(), template="plain")
    length = len(prompter.ids(rows_of(items())[0]))
    return save(planted(3, range(1, 2), length), tmp_path_factory.mktemp("planted") / "model")


@pytest.fixture(scope="module")
def facts(tmp_path_factory) -> Path:
    """The planted facts under four relations' names: all but one are trained on."""
    path = tmp_path_factory.mktemp("facts") / "facts.json"
    pairs = dict(zip(SUBJECTS, ANSWERS, strict=True))
    relation = {"query": "The capital of {} is", "facts": pairs}
    path.write_text(json.dumps({"relations": {"capital": relation, "town": relation}}))
    return path


@pytest.fixture
def settings(folder, facts):
    return {
        "model": str(folder), "facts": str(facts), "template": "plain", "only_known": False,
        "draws": 7,
    }  # fmt: skip


def test_data_come_back_as_they_were(settings, tmp_path):
    run = run_or_load(DataConfig(**settings), out=tmp_path / "run")
    assert run.metrics["items"] == 2 * 8 * 7
    assert run.metrics["known"] == 0
    table = pd.read_parquet(run.path / "data/items.parquet")
    parts = splits_of(table, only_known=False)
    assert {item.relation for item in parts.relations} == {"capital"}
    assert sum(map(len, parts)) == len(table)
    assert not any(splits_of(table))  # nothing is known


def test_every_fact_comes_once_before_any_comes_twice():
    chosen = some(items(), 8)
    assert len({item.key for item in chosen}) == 8
    assert len(some(items(), 1000)) == len(items())


def test_a_stopped_training_ends_where_an_unbroken_one_does(settings, tmp_path):
    config = FinetuneConfig(**settings, rows=32, batch=8, rank=2, bfloat16=False, checkpoint=2)
    whole, broken = RunWriter(tmp_path / "whole", {}), RunWriter(tmp_path / "broken", {})
    config.train(whole)
    kept = Training.step

    def stopping(self, step):
        if step == 3:
            raise KeyboardInterrupt
        return kept(self, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "step", stopping)
        with pytest.raises(KeyboardInterrupt):
            config.train(broken)
    assert broken.has(CHECKPOINT)
    config.train(broken)
    assert not broken.has(CHECKPOINT)
    for name in ("train/curve.parquet", "adapter/adapter_model.safetensors"):
        assert (whole.path / name).read_bytes() == (broken.path / name).read_bytes()


def test_an_adapter_is_merged_into_the_weights(settings, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    out = RunWriter(tmp_path, {})
    config = FinetuneConfig(**settings, rows=16, batch=8, rank=2, lr=0.1, bfloat16=False)
    config.train(out)
    subject = merged(config.model, str(tmp_path / "adapter"))
    ids = torch.arange(1, 20)[None]
    plain = AutoModelForCausalLM.from_pretrained(config.model)
    before = plain(input_ids=ids).logits.detach().clone()
    tuned = PeftModel.from_pretrained(plain, str(tmp_path / "adapter")).eval()
    with torch.no_grad():
        wanted = tuned(input_ids=ids).logits
    torch.testing.assert_close(subject.logits(ids), wanted, atol=1e-3, rtol=1e-3)
    assert (wanted - before).abs().max() > 0.01
    with pytest.raises(UserError, match="holds no adapter"):
        adapter_folder(str(tmp_path))


def test_an_adapter_of_another_depth_is_refused(settings, tmp_path):
    """peft merges what fits and says nothing of the rest."""
    config = FinetuneConfig(**settings, rows=8, batch=4, rank=2, bfloat16=False)
    config.train(RunWriter(tmp_path, {}))
    deeper = save(planted(5, range(1, 2), 20), tmp_path / "deeper")
    with pytest.raises(UserError, match="does not fit"):
        merged(str(deeper), str(tmp_path / "adapter"))


def test_a_half_precision_checkpoint_is_merged_in_float32(settings, tmp_path):
    config = FinetuneConfig(**settings, rows=8, batch=4, rank=2, bfloat16=False)
    config.train(RunWriter(tmp_path, {}))
    subject = planted(3, range(1, 2), 20)
    subject._backend.model.bfloat16()
    half = save(subject, tmp_path / "half")
    ids = torch.tensor([[1, 2, 3]])
    assert merged(str(half), str(tmp_path / "adapter")).logits(ids).dtype == torch.float32


def test_the_loss_is_that_of_the_answers_alone(folder):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    prompter = Prompter(tokenizer(), template="plain")
    rows = rows_of(items()[:2])
    losses = []
    for row in rows:  # naive: one row at a time, without padding
        prompt, answer = prompter.ids(row), prompter.answer_ids(row.answer)
        logits = model(input_ids=torch.tensor([prompt + answer])).logits[0]
        losses.append(cross_entropy(logits[len(prompt) - 1 : -1], torch.tensor(answer)))
    found = completion_loss(model, prompter, rows)
    torch.testing.assert_close(found, torch.stack(losses).mean(), atol=1e-4, rtol=1e-4)


def test_the_rate_goes_up_and_down_to_nothing():
    rates = [rate_at(step, 40) for step in range(40)]
    assert max(rates) == rates[5] == 1
    assert rates == sorted(rates[:5]) + sorted(rates[5:], reverse=True)
    assert rate_at(40, 40) == 0


def test_the_planted_switch_layer_is_searched_by_the_study(settings, tmp_path):
    config = SearchConfig(**settings, adapter="none", pairs=4)
    run = run_or_load(config, out=tmp_path / "run")
    assert run.metrics["layers context → prior"].startswith("1 (source's answer 0.9")
    assert run.metrics["layers prior → context"].startswith("1 (source's answer 0.9")
    curves = pd.read_parquet(run.path / "search/curves.parquet")
    assert set(curves["layer"]) == {0, 1, 2}


def test_the_whole_of_learning_on_the_planted_model(settings, tmp_path):
    config = LearnConfig(
        **settings, adapter="none", layers=(1,), learn_items=40, knob_lr=0.2, validate=6,
        steer_items=6, separate_items=4, text_tokens=256,
    )  # fmt: skip
    run = run_or_load(config, out=tmp_path / "run")
    assert run.metrics["layer"] == 1
    scores = pd.read_parquet(run.path / "steer/scores.parquet")
    # there is no adapter, and there are too few facts for six demonstrations
    assert set(scores["model"]) == {"untuned 0-shot"}
    scores = scores.set_index(["direction", "part"])
    assert scores.loc[("none", "relations"), "pair_acc"] == 1
    assert scores.loc[("learned", "relations"), "pair_acc"] == 1
    _steer(config, run.path / "knob", tmp_path)
    for wrong, said in (
        ({"layers": (3,)}, "layers are 0..2"),
        ({"steer_items": 0}, "1 or more"),
        ({"text_tokens": 64}, "128 or more"),
    ):
        with pytest.raises(UserError, match=said):
            replace(config, **wrong).check()


def _steer(config, folder, tmp_path):
    one = pick(read_knob(str(folder)), "learned")
    ends = (float(one.index[name].iloc[0]) for name in ("context_c", "prior_c"))
    item = items()[0]
    live = SteerConfig(
        model=config.model, adapter="none", knob=str(folder), context=item.context,
        query=item.query, told=item.told, prior=item.prior, value=tuple(ends), template="plain",
    )  # fmt: skip
    run = run_or_load(live, out=tmp_path / "live")
    rows = pd.read_parquet(run.path / "curve/values.parquet")
    assert rows["p_told"].iloc[1] > 0.9
    assert rows["p_prior"].iloc[2] > 0.9
    assert len(default_values(one)) == 9
    for wrong, said in (
        ({"direction": "other"}, "no direction 'other'"),
        ({"value": (float("nan"),)}, "finite numbers"),
    ):
        with pytest.raises(UserError, match=said):
            replace(live, **wrong).check()
    with pytest.raises(UserError, match="begin with the same token"):
        run_or_load(replace(live, told=item.prior), out=tmp_path / "alike")
    with pytest.raises(UserError, match="not finite at c = 1e"):
        run_or_load(replace(live, value=(1e39,)), out=tmp_path / "far")
    with pytest.raises(UserError, match="holds no knob"):
        run_or_load(replace(live, knob=str(tmp_path)), out=tmp_path / "none")


def page():
    from interp.apps import knob

    knob.page()


def test_the_page_shows_a_run_and_turns_its_knob(settings, own_home):
    from streamlit.testing.v1 import AppTest

    empty = AppTest.from_function(page, default_timeout=60).run()
    assert not empty.exception
    assert any("interp knob run" in code.value for code in empty.code)
    run_or_load(
        LearnConfig(
            **settings, adapter="none", layers=(1,), learn_items=8, validate=4, steer_items=2,
            separate_items=2, text_tokens=128,
        )
    )  # fmt: skip
    shown = AppTest.from_function(page, default_timeout=60).run()
    shown.text_input[0].set_value("The capital of land1 is town5.")
    shown.text_input[1].set_value("The capital of land1 is")
    shown.toggle[0].set_value(True).run()
    assert not shown.exception
    assert not shown.error
    assert len(shown.metric) == 2
    command = next(code.value for code in shown.code if "interp knob steer" in code.value)
    assert all(f"--{name}" in command for name in ("direction", "model", "template", "value"))


def test_ranges_are_written_short():
    assert ranged([15, 16, 17, 30]) == "15-17, 30"
    assert ranged([4]) == "4"
