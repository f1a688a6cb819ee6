"""Training a two-layer OthelloGPT, the learning rate, and the evaluation."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import GPT2LMHeadModel

from interp.errors import UserError
from interp.othello.evaluate import evaluate, loss_floor
from interp.othello.games import random_games, replay, tokens_of
from interp.othello.train import TrainConfig, build_model, lr_at, train
from interp.othello.training_state import CHECKPOINT
from interp.plain_tensors import read_tensors


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    folder = tmp_path_factory.mktemp("train")
    return TrainConfig(
        out=folder / "model",
        ckpt=folder / "ckpt",
        games=32 * 30,
        n_layers=2,
        d_model=32,
        n_heads=2,
        batch=32,
        lr=3e-3,
        precision="fp32",
        eval_games=32,
        log_every=10,
    )


@pytest.fixture(scope="module")
def whole(config: TrainConfig) -> dict[str, Any]:
    """The card of an uninterrupted training."""
    assert train(config)
    return card(config)


def card(config: TrainConfig) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((config.out / "card.json").read_text())
    return found


def elsewhere(config: TrainConfig, folder: Path, **changes: Any) -> TrainConfig:
    return replace(config, out=folder / "model", ckpt=folder / "ckpt", **changes)


def test_loss_falls_and_the_folder_opens_as_a_plain_model(
    config: TrainConfig, whole: dict[str, Any]
) -> None:
    curve = whole["loss_curve"]
    assert curve[-1]["games"] == config.games
    assert curve[-1]["above_floor"] < curve[0]["above_floor"] - 0.1
    model = GPT2LMHeadModel.from_pretrained(config.out)
    assert model.config.n_positions == 59
    assert model.config.vocab_size == 61
    assert model.lm_head.weight.data_ptr() != model.transformer.wte.weight.data_ptr()
    assert "argmax legality" in (config.out / "README.md").read_text()


def test_resuming_changes_nothing_and_needs_the_same_settings(
    config: TrainConfig, whole: dict[str, Any], tmp_path: Path
) -> None:
    broken = elsewhere(config, tmp_path)
    assert not train(broken, stop_after=15)
    assert not list(broken.out.iterdir())
    with pytest.raises(UserError, match=r"other settings \(lr\)"):
        train(replace(broken, lr=1e-4))
    assert train(broken)
    for a, b in zip(whole["loss_curve"], card(broken)["loss_curve"], strict=True):
        assert a == pytest.approx(b, abs=1e-5)
    one, two = (GPT2LMHeadModel.from_pretrained(c.out) for c in (config, broken))
    for (name, a), b in zip(one.named_parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6, msg=name)


def test_two_processes_do_not_share_checkpoints(config: TrainConfig, tmp_path: Path) -> None:
    apart = elsewhere(config, tmp_path)
    with FileLock(apart.ckpt / ".lock"), pytest.raises(UserError, match="another process is train"):
        train(apart)
    assert not (apart.ckpt / CHECKPOINT).exists()


def test_shards_are_a_way_to_compute_not_another_training(
    config: TrainConfig, whole: dict[str, Any], tmp_path: Path
) -> None:
    shards = elsewhere(config, tmp_path, shards=3)
    train(shards, stop_after=10)
    with safe_open(shards.ckpt / CHECKPOINT, "pt") as file:
        loss = json.loads(file.metadata()["state"])["curve"][-1]["loss"]
    assert loss == pytest.approx(whole["loss_curve"][0]["loss"], abs=1e-4)


def test_a_damaged_checkpoint(config: TrainConfig, whole: dict[str, Any], tmp_path: Path) -> None:
    """Whole, of another state, or with a tensor of another shape: no traceback, no other start."""
    shutil.copytree(config.ckpt, tmp_path / "ckpt")
    path = tmp_path / "ckpt" / CHECKPOINT
    tensors, about = read_tensors(path)
    state = json.loads(about["state"])
    name = min(name for name in tensors if name.startswith("exp_avg."))
    for change, note, line in (
        ({}, {"step": "3"}, "'step' of 'state' of .* is a text, not a whole number"),
        ({}, {"curve": [3]}, "entry 1 of 'curve' of 'state' of .* is a whole number, not an obj"),
        ({name: torch.zeros(1)}, {}, f"has no {name} of .*: give another --ckpt"),
    ):
        save_file(tensors | change, path, {"state": json.dumps(state | note)})
        with pytest.raises(UserError, match=line):
            train(elsewhere(config, tmp_path))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="cannot be read .*: give another --ckpt"):
        train(elsewhere(config, tmp_path))


def test_bf16_products_follow_fp32(
    config: TrainConfig, whole: dict[str, Any], tmp_path: Path
) -> None:
    bf16 = elsewhere(config, tmp_path, precision="bf16")
    train(bf16)
    assert abs(card(bf16)["held_out"]["loss"] - whole["held_out"]["loss"]) < 0.02


def test_learning_rate_rises_then_falls_to_zero(config: TrainConfig) -> None:
    rates = [lr_at(step, config) for step in range(config.steps + 1)]
    assert max(rates) <= config.lr
    assert np.argmax(rates) <= config.steps // 10 + 1
    assert rates[-1] == pytest.approx(0)


def test_evaluation_against_its_definition(config: TrainConfig) -> None:
    """Short games included: pads must not count."""
    games = random_games(400, seed=2, split="held_out")
    games = games[np.argsort((games != 0).sum(1))[:12]]
    assert (games[:, -1] == 0).any()
    model = build_model(config).eval()
    score = evaluate(model, games, batch=5)
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(games[:, :-1]).long()).logits
    p = logits.double().softmax(-1).numpy()
    legal = tokens_of(replay(games).legal)[:, 1:]
    rows: list[tuple[float, ...]] = []
    for game, ply in np.argwhere(games[:, 1:] != 0):
        ok, q = legal[game, ply], p[game, ply]
        kl = sum(np.log(1 / ok.sum() / q[t]) / ok.sum() for t in np.flatnonzero(ok))
        nll = -np.log(q[games[game, ply + 1]])
        rows.append((nll, kl, ok[q.argmax()], q[~ok].sum(), np.log(ok.sum())))
    loss, kl_mean, legality, illegal, floor = np.mean(rows, axis=0)
    assert score.n_moves == len(rows)
    np.testing.assert_allclose(
        [score.loss, score.kl, score.legality, score.illegal_mass, score.floor],
        [loss, kl_mean, legality, illegal, floor],
        atol=1e-5,
    )
    assert loss_floor(games) == score.floor
