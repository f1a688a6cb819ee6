"""`interp othello …`"""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.extras import SubcommandApp

from ..errors import UserError
from ..othello.compare import CompareConfig
from ..othello.edit import EditConfig
from ..othello.probe import ProbeConfig
from ..othello.sae import SaeConfig
from ..othello.settings import TrainConfig
from ..runs.store import Run, Store
from ..runs.study import run_or_load
from .common import (
    Fresh,
    Json,
    Out,
    Runs,
    command,
    print_json,
    print_rows,
    print_table,
    report,
    study_command,
)

othello = SubcommandApp()


@command(othello, "play")
def play(
    moves: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(help="Such as f5 d6 c3; none: a random game."),
    ] = (),
    model: Annotated[str, tyro.conf.arg(help="An OthelloGPT: the shipped one, or a folder.")] = (
        "othello-gpt"
    ),
    seed: Annotated[int, tyro.conf.arg(help="Which random game.")] = 0,
    plies: Annotated[int, tyro.conf.arg(help="Moves of the random game to play.")] = 20,
    json: Json = False,
) -> None:
    """Play moves on a board: legal moves, stable discs, and what the model expects next."""
    from ..model.subject import open_subject
    from ..othello.games import random_games
    from ..othello.position import drawn, move_probabilities, parse_moves, position, written
    from ..othello.sae import open_othello

    if not 1 <= plies <= 59:
        raise UserError(f"--plies must be between 1 and 59, not {plies}")
    if seed < 0:
        raise UserError(f"--seed is a number from 0 up, not {seed}")
    open_othello(model)
    tokens = parse_moves(" ".join(moves)) if moves else random_games(1, seed)[0, :plies]
    where = position(tokens[tokens > 0])
    chances = move_probabilities(open_subject(model), where.tokens)
    order = chances.argsort()[::-1][: max(10, int(where.legal.sum()))]
    rows = [
        _move(int(square), float(chances[square]), bool(where.legal[square])) for square in order
    ]
    facts = {
        "moves": written(where.tokens),
        "next": {0: "black", 1: "white", -1: "nobody"}[where.mover],
        "black": int((where.absolute == 1).sum()),
        "white": int((where.absolute == 2).sum()),
        "legal": int(where.legal.sum()),
        "stable": int(where.sound.sum()),
        "probability_legal": round(float(chances[where.legal].sum()), 6),
    }
    if json:
        print_json({"study": "othello.play", "run": None, "metrics": facts, "results": rows})
        return
    print(drawn(where))
    print_table(["", ""], [[name, str(value)] for name, value in facts.items()])
    print_table(
        ["move", "probability", "legal"],
        [[row["move"], f"{row['probability']:.4f}", str(row["legal"])] for row in rows],
    )


def _move(square: int, probability: float, legal: bool) -> dict[str, Any]:
    from ..othello.facts import TILES

    return {"move": TILES[square], "probability": round(probability, 6), "legal": legal}


@command(othello, "train")
def train(config: tyro.conf.OmitArgPrefixes[TrainConfig], json: Json = False) -> None:
    """Train an OthelloGPT on random games; the same command again continues from a checkpoint."""
    from ..othello.train import train

    train(config)
    score = jsonlib.loads((config.out / "card.json").read_text())["held_out"]
    if json:
        print_json({"study": "othello.train", "run": str(config.out), "metrics": score})
        return
    print(config.out)
    print_table(["metric", "value"], [[name, f"{value:.6g}"] for name, value in score.items()])


study_command(othello, "sae", SaeConfig)
study_command(othello, "probe", ProbeConfig)


@command(othello, "compare")
def compare(
    config: tyro.conf.OmitArgPrefixes[CompareConfig],
    out: Out = None,
    picture: Annotated[
        Path | None, tyro.conf.arg(help="Also write the figure, an HTML file.", metavar="FILE")
    ] = None,
    runs: Runs = None,
    fresh: Fresh = False,
    json: Json = False,
) -> None:
    """Linear probes against sparse autoencoders, layer by layer: table, picture, findings."""
    run = run_or_load(config, Store(runs), out, fresh)
    found = _findings(run)
    if picture:
        _draw(run, picture)
    if json:
        both = {"study": run.study, "run": str(run.path), "metrics": run.metrics}
        print_json({**both, "findings": found})
        return
    from ..othello.compare import scores
    from ..othello.findings import wide

    print(run.path)
    grid = wide(scores(run.path), MEASURES)
    layers = [f"layer {layer}" for layer in grid.columns]
    rows = [
        [*map(str, index), *cells] for index, cells in zip(grid.index, grid.to_numpy(), strict=True)
    ]
    print_table(["measure", "reader", *layers], rows)
    for sentence in found:
        print("-", sentence)


MEASURES = [
    "accuracy", "accuracy_colour", "coverage", "reconstruction", "auroc_empty", "auroc_own",
    "auroc_enemy", "auroc_paper", "auroc_sound", "stable_paper", "stable_sound", "tiles_sound",
    "cosine_probe", "cosine_mean", "nearest_probe", "probe_through", "fvu", "l0",
]  # fmt: skip


def _findings(run: Run) -> list[str]:
    from ..othello.compare import scores
    from ..othello.findings import sentences

    return sentences(scores(run.path), run.metrics)


def _draw(run: Run, path: Path) -> None:
    from ..othello import figures
    from ..othello.compare import scores
    from ..othello.findings import table

    try:
        figures.othello_layers(table(scores(run.path))).write_html(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def _edits(run: Run, json: bool) -> None:
    """Each reader at its best strength."""
    report(run, json)
    if json:
        return
    import pandas as pd

    from ..othello.edit import chosen_scales

    columns = ["reader", "seed", "layers", "scale", "errors", "saved", "saved_low", "saved_high"]
    rows = chosen_scales(pd.read_parquet(run.path / "errors" / "table.parquet"))
    print_rows(rows[[*columns, "closed"]])


study_command(othello, "edit", EditConfig, _edits)
