"""The studies on the planted model: training resumes, adapters fit, the chain's parts are whole."""

import shutil
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from interp.errors import UserError
from interp.knob.adapter import adapter_folder, open_tuned
from interp.knob.data import DataConfig, sample, splits_of
from interp.knob.finetune import WARM_UP, Training, completion_loss
from interp.knob.learn import LearnConfig
from interp.knob.prompts import rows_of
from interp.knob.schedule import rate_at
from interp.knob.search import SearchConfig, layer_ranges
from interp.knob.steer_prompt import SteerConfig, default_values, pick_direction, read_knob
from interp.runs.checkpoint import Checkpoint
from interp.runs.study import run_or_load
from interp.runs.writer import RunWriter

from ..figures import figure_names
from .conftest import training
from .planted import items, planted, save


def test_data_come_back_as_they_were(data_settings, tmp_path):
    run = run_or_load(DataConfig(**data_settings), out=tmp_path / "run")
    assert run.metrics["items"] == 2 * 8 * 7
    assert run.metrics["known"] == 0
    table = run.table("data/items")
    assert (table["context"] == table["query"] + " " + table["told"] + ".").all()
    splits = splits_of(table, only_known=False)
    assert {item.relation for item in splits.relations} == {"capital"}
    assert sum(map(len, splits)) == len(table)
    item = splits.relations[0]
    assert item.context == f"{item.query} {item.context_answer}."
    assert not any(splits_of(table))  # nothing is known


def test_every_fact_comes_once_before_any_comes_twice():
    assert len({item.key for item in sample(items(), 8)}) == 8
    assert len(sample(items(), 1000)) == len(items())


def test_a_stopped_training_ends_where_an_unbroken_one_does(
    settings, adapter_run, tmp_path, monkeypatch
):
    broken = RunWriter(tmp_path, {})
    kept = Training.step

    def stopping(self, step):
        if step == 3:
            raise KeyboardInterrupt
        return kept(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "step", stopping)
        with pytest.raises(KeyboardInterrupt):
            training(settings).train(broken)
    checkpoint = Checkpoint(broken, "train/curve")
    assert len(checkpoint.read().note["losses"]) == 2
    training(settings).train(broken)
    assert checkpoint.read() is None
    for name in ("train/curve.parquet", "adapter/adapter_model.safetensors"):
        assert (adapter_run.path / name).read_bytes() == (broken.path / name).read_bytes()


def test_an_adapter_is_merged_into_the_weights(folder, adapter_run, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapter = str(adapter_run.path / "adapter")
    ids = torch.arange(1, 20)[None]
    merged = open_tuned(str(folder), adapter).logits(ids)
    plain = AutoModelForCausalLM.from_pretrained(folder)
    before = plain(input_ids=ids).logits.detach().clone()
    torch.testing.assert_close(open_tuned(str(folder), "none").logits(ids), before)
    tuned = PeftModel.from_pretrained(plain, adapter).eval()
    with torch.no_grad():
        wanted = tuned(input_ids=ids).logits
    torch.testing.assert_close(merged, wanted, atol=1e-3, rtol=1e-3)
    assert (wanted - before).abs().max() > 0.01
    with pytest.raises(UserError, match="holds no adapter"):
        adapter_folder(str(tmp_path))


def test_an_adapter_of_another_depth_is_refused(adapter_run, tmp_path):
    """peft merges what fits and says nothing of the rest."""
    deeper = save(planted(5, range(1, 2), 20), tmp_path / "deeper")
    with pytest.raises(UserError, match="does not fit"):
        open_tuned(str(deeper), str(adapter_run.path / "adapter"))


def test_a_half_precision_checkpoint_is_merged_in_float32(adapter_run, tmp_path):
    subject = planted(3, range(1, 2), 20)
    subject._backend.model.bfloat16()
    half = save(subject, tmp_path / "half")
    tuned = open_tuned(str(half), str(adapter_run.path / "adapter"))
    assert tuned.logits(torch.tensor([[1, 2, 3]])).dtype == torch.float32


def test_the_loss_is_that_of_the_answers_alone(folder, prompter):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    rows = rows_of(items()[:2])
    losses = []
    for row in rows:  # naive: one row at a time, without padding
        prompt, answer = prompter.ids(row), prompter.answer_ids(row.answer)
        logits = model(input_ids=torch.tensor([prompt + answer])).logits[0]
        losses.append(cross_entropy(logits[len(prompt) - 1 : -1], torch.tensor(answer)))
    loss = completion_loss(model, prompter, rows)
    torch.testing.assert_close(loss, torch.stack(losses).mean(), atol=1e-4, rtol=1e-4)


def test_the_rate_goes_up_and_down_to_nothing():
    rates = [rate_at(step, 40, WARM_UP) for step in range(40)]
    assert max(rates) == rates[5] == 1
    assert rates == sorted(rates[:5]) + sorted(rates[5:], reverse=True)
    assert rate_at(40, 40, WARM_UP) == 0


def test_the_planted_switch_layer_is_searched_by_the_study(settings, tmp_path):
    config = SearchConfig(**settings, adapter="none", pairs=4)
    run = run_or_load(config, out=tmp_path / "run")
    assert run.metrics["layers context → prior"].startswith("1 (source's answer 0.9")
    assert run.metrics["layers prior → context"].startswith("1 (source's answer 0.9")
    assert set(run.table("search/curves")["layer"]) == {0, 1, 2}


def test_the_whole_of_learning_on_the_planted_model(learned_run):
    assert learned_run.metrics["layer"] == 1
    scores = learned_run.table("steer/scores")
    # there is no adapter, and there are too few facts for six demonstrations
    assert set(scores["model"]) == {"untuned 0-shot"}
    assert set(scores["unit"]) == {"fact"}
    scores = scores.set_index(["direction", "part"])
    assert scores.loc[("none", "relations"), "pair_acc"] == 1
    assert scores.loc[("learned", "relations"), "pair_acc"] == 1
    config = LearnConfig(**{name: _as_set(x) for name, x in learned_run.config.items()})
    for wrong, said in (
        ({"layers": (3,)}, "must be in 0..2"),
        ({"steer_items": 0}, "at least 1"),
        ({"text_tokens": 64}, "at least 128"),
    ):
        with pytest.raises(UserError, match=said):
            replace(config, **wrong).check()


def _as_set(value):
    return tuple(value) if isinstance(value, list) else value


def test_its_figures_are_drawn(learned_run):
    names = figure_names(learned_run)
    assert {"layers", "sweep-untuned-0-shot", "pairacc-untuned-0-shot", "cost"} <= names


def test_a_prompt_of_ones_own_is_steered(learned_run, folder, tmp_path):
    knob = learned_run.path / "knob"
    direction = pick_direction(read_knob(str(knob)), "learned")
    ends = (float(direction.index[name].iloc[0]) for name in ("context_c", "prior_c"))
    item = items()[0]
    config = SteerConfig(
        model=str(folder), adapter="none", knob=str(knob), context=item.context, query=item.query,
        told=item.context_answer, prior=item.prior_answer, value=tuple(ends), template="plain",
    )  # fmt: skip
    rows = run_or_load(config, out=tmp_path / "steered").table("curve/values")
    assert rows["p_told"].iloc[1] > 0.9
    assert rows["p_prior"].iloc[2] > 0.9
    assert len(default_values(direction)) == 9
    for wrong, said in (
        ({"direction": "other"}, "there is no direction 'other'"),
        ({"value": (float("nan"),)}, "finite numbers"),
        ({"device": "nowhere"}, "device 'nowhere' cannot be used"),
    ):
        with pytest.raises(UserError, match=said):
            replace(config, **wrong).check()
    for place, wrong, said in (
        ("alike", {"told": item.prior_answer}, "begin with the same token"),
        ("far", {"value": (1e39,)}, "not finite at c = 1e"),
        ("none", {"knob": str(tmp_path)}, "holds no knob"),
    ):
        with pytest.raises(UserError, match=said):
            run_or_load(replace(config, **wrong), out=tmp_path / place)


def page():
    from interp.apps import knob

    knob.page()


def test_the_page_shows_a_run_and_turns_its_knob(learned_run, own_home):
    from streamlit.testing.v1 import AppTest

    empty = AppTest.from_function(page, default_timeout=120).run()
    assert not empty.exception
    assert any("ships with the workbench" in caption.value for caption in empty.caption)
    shutil.copytree(learned_run.path, own_home / "runs" / "knob.learn" / "stored")
    shown = AppTest.from_function(page, default_timeout=120).run()
    shown.text_input[0].set_value("The capital of land1 is town5.")
    shown.text_input[1].set_value("The capital of land1 is")
    shown.toggle[0].set_value(True).run()
    assert not shown.exception
    assert not shown.error
    assert len(shown.metric) == 2
    command = next(code.value for code in shown.code if "interp knob steer" in code.value)
    assert all(f"--{name}" in command for name in ("direction", "model", "template", "value"))


def test_ranges_are_written_short():
    assert layer_ranges([15, 16, 17, 30]) == "15-17, 30"
    assert layer_ranges([4]) == "4"
