"""A two-layer OthelloGPT: the loss falls, an interrupted run ends as an unbroken one does."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel

from interp.errors import UserError
from interp.othello.evaluate import evaluate, loss_floor
from interp.othello.games import random_games, replay, tokens_of
from interp.othello.train import TrainConfig, build_model, lr_at, train


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        out=tmp_path / "model",
        ckpt=tmp_path / "ckpt",
        games=32 * 40,
        n_layers=2,
        d_model=32,
        n_heads=2,
        batch=32,
        lr=3e-3,
        precision="fp32",
        eval_games=32,
        log_every=10,
    )


def test_loss_falls_and_the_folder_opens_as_a_plain_model(config: TrainConfig) -> None:
    assert train(config)
    curve = json.loads((config.out / "card.json").read_text())["loss_curve"]
    assert curve[-1]["games"] == config.games
    assert curve[-1]["above_floor"] < curve[0]["above_floor"] - 0.1
    model = GPT2LMHeadModel.from_pretrained(config.out)
    assert model.config.n_positions == 59
    assert model.config.vocab_size == 61
    assert model.lm_head.weight.data_ptr() != model.transformer.wte.weight.data_ptr()
    assert "argmax legality" in (config.out / "README.md").read_text()


def test_resuming_changes_nothing(config: TrainConfig, tmp_path: Path) -> None:
    assert train(config)
    broken = replace(config, out=tmp_path / "model2", ckpt=tmp_path / "ckpt2")
    assert not train(broken, stop_after=15)
    assert not list(broken.out.iterdir())
    assert train(broken)
    cards = [json.loads((c.out / "card.json").read_text()) for c in (config, broken)]
    for a, b in zip(*(card["loss_curve"] for card in cards), strict=True):
        assert a == pytest.approx(b, abs=1e-5)
    one, two = (GPT2LMHeadModel.from_pretrained(c.out) for c in (config, broken))
    for (name, a), b in zip(one.named_parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6, msg=name)


def test_shards_are_a_way_to_compute_not_another_run(config: TrainConfig, tmp_path: Path) -> None:
    curves = []
    for shards in (1, 3):
        out, ckpt = tmp_path / f"out{shards}", tmp_path / f"ckpt{shards}"
        train(replace(config, games=32 * 10, shards=shards, out=out, ckpt=ckpt))
        curves.append(json.loads((out / "card.json").read_text())["loss_curve"][-1]["loss"])
    assert curves[0] == pytest.approx(curves[1], abs=1e-4)


def test_a_checkpoint_of_another_run_is_refused(config: TrainConfig) -> None:
    train(config, stop_after=2)
    with pytest.raises(UserError, match=r"other settings \(lr\)"):
        train(replace(config, lr=1e-4))


def test_bf16_products_follow_fp32(config: TrainConfig, tmp_path: Path) -> None:
    scores = []
    for precision in ("fp32", "bf16"):
        folder = tmp_path / precision
        train(replace(config, precision=precision, out=folder, ckpt=tmp_path / f"{precision}-c"))
        scores.append(json.loads((folder / "card.json").read_text())["held_out"]["loss"])
    assert abs(scores[0] - scores[1]) < 0.02


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
