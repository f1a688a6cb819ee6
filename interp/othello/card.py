"""The model card of a trained OthelloGPT: card.json for programs, README.md for people."""

import json
import platform
from pathlib import Path
from typing import Any

import torch
import transformers

from . import board
from .evaluate import Score
from .training_state import TrainingState

_TEXT = """# OthelloGPT, {n_layers} layers, d_model {d_model}

A GPT-2 (LayerNorm, GELU, learned positions, untied embeddings; {n_heads} heads, MLP {d_mlp})
trained from scratch on {games:,} uniformly random legal Othello games. Each game is seen once;
`interp.othello.games.random_games(..., seed={seed}, split="train")` makes them. Weights are fp32.

Made with `interp othello train`: batch {batch} games, AdamW peak lr {lr}, weight
decay {weight_decay}, linear warm-up and cosine to zero, {precision} matrix products;
{hours:.2f} hours of wall time, pauses included, on {machine}. `interp/othello/train.py` gives the
speeds behind these choices.

**Tokens.** 0 = pad, 1..60 = squares 8 * row + col without 27, 28, 35, 36, in order. Context 59;
position t has read moves 0..t and predicts move t + 1. There is no start token.

**Held-out games.** A hash of the first {prefix} moves (equal for mirrored games) keeps one opening
in {one_in} out of training, for every seed. Scores on {n_games:,} such games ({n_moves:,} moves,
plies 2-60), in fp32:

| measure | value |
|---|---|
| argmax legality | {legality:.4f} |
| loss (nats) | {loss:.4f} |
| floor: mean log number of legal moves | {floor:.4f} |
| loss above the floor | {loss_above_floor:.4f} |
| KL(uniform over legal moves, model) | {kl:.4f} |
| probability on illegal tokens | {illegal_mass:.4f} |

**Training loss** (all points in card.json):

| games | loss | above the floor |
|---|---|---|
{curve}

**Held-out legality during training** (200 games):

| games | legality | KL |
|---|---|---|
{on_the_way}
"""


def _table(rows: list[dict[str, float]]) -> str:
    """About 20 Markdown rows, evenly spread, the last one included: games, then the rest to four
    places."""
    lines = []
    for games, *rest in [row.values() for row in rows[:: -max(1, len(rows) // 20)][::-1]]:
        lines.append(" | ".join([f"| {int(games):,}", *(f"{x:.4f}" for x in rest)]) + " |")
    return "\n".join(lines)


def write_card(out: Path, config: dict[str, Any], state: TrainingState, score: Score) -> None:
    """Write card.json and README.md into the model's folder."""
    settings = {k: v for k, v in config.items() if k not in ("out", "ckpt")}
    trained = state.step * config["batch"]
    card = {
        "config": settings,
        "games_trained": trained,
        "steps": state.step,
        "wall_seconds": round(state.seconds, 1),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "held_out": score._asdict(),
        "legality_on_the_way": state.legality,
        "loss_curve": state.curve,
    }
    (out / "card.json").write_text(json.dumps(card, indent=1) + "\n")
    text = _TEXT.format(
        **{**settings, **score._asdict(), "games": trained},
        d_mlp=4 * config["d_model"],
        hours=state.seconds / 3600,
        machine=f"{config['shards']} CPU threads",
        prefix=board.PREFIX,
        one_in=board.HELD_OUT_ONE_IN,
        curve=_table(state.curve),
        on_the_way=_table(state.legality),
    )
    (out / "README.md").write_text(text)
