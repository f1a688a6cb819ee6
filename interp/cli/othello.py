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
        tyro.conf.arg(help="For example f5 d6 c3; without moves, a random game."),
    ] = (),
    model: Annotated[str, tyro.conf.arg(help="An OthelloGPT: the shipped one, or a folder.")] = (
        "othello-gpt"
    ),
    seed: Annotated[int, tyro.conf.arg(help="Seed of the random game.")] = 0,
    plies: Annotated[int, tyro.conf.arg(help="Number of moves of the random game.")] = 20,
    json: Json = False,
) -> None:
    """Play moves on a board: legal moves, stable discs, and the moves that the model predicts."""
    from ..model.subject import open_subject
    from ..othello import board_labels, games, position, study

    if not 1 <= plies <= 59:
        raise UserError(f"--plies must be between 1 and 59, not {plies}")
    if seed < 0:
        raise UserError(f"--seed must be at least 0, not {seed}")
    study.open_othello(model)
    given = position.parse_moves(" ".join(moves))
    tokens = given if moves else games.random_games(1, seed)[0, :plies]
    board = position.position_after(tokens[tokens > 0])
    chances = position.move_probabilities(open_subject(model), board.tokens)
    rows: list[dict[str, Any]] = [
        {
            "move": board_labels.TILES[square],
            "probability": round(float(chances[square]), 6),
            "legal": bool(board.legal[square]),
        }
        for square in chances.argsort()[::-1][: max(10, int(board.legal.sum()))]
    ]
    facts = {
        "moves": position.move_names(board.tokens),
        "next": position.PLAYERS[board.mover],
        "black": int((board.absolute == 1).sum()),
        "white": int((board.absolute == 2).sum()),
        "legal": int(board.legal.sum()),
        "stable": int(board.sound.sum()),
        "probability_legal": round(float(chances[board.legal].sum()), 6),
    }
    if json:
        print_json({"study": "othello.play", "run": None, "metrics": facts, "results": rows})
        return
    print(position.board_text(board))
    print_table(["", ""], [[name, str(value)] for name, value in facts.items()])
    print_table(
        ["move", "probability", "legal"],
        [[row["move"], f"{row['probability']:.4f}", str(row["legal"])] for row in rows],
    )


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
        Path | None, tyro.conf.arg(help="Also write the figure to an HTML file.", metavar="FILE")
    ] = None,
    runs: Runs = None,
    fresh: Fresh = False,
    json: Json = False,
) -> None:
    """Linear probes against sparse autoencoders, layer by layer: table, picture, findings."""
    from ..othello import findings
    from ..othello.compare import scores

    run = run_or_load(config, Store(runs), out, fresh)
    rows = scores(run.path)
    sentences = findings.sentences(rows, run.metrics)
    if picture:
        from ..othello import figures

        try:
            figures.othello_layers(findings.table(rows)).write_html(picture)
        except OSError as error:
            raise UserError(f"cannot write {picture}: {error.strerror or error}") from error
    if json:
        both = {"study": run.study, "run": str(run.path), "metrics": run.metrics}
        print_json({**both, "findings": sentences})
        return
    print(run.path)
    grid = findings.wide(rows, MEASURES)
    print_rows(grid.rename(columns="layer {}".format).reset_index())
    for sentence in sentences:
        print("-", sentence)


MEASURES = [
    "accuracy", "accuracy_colour", "coverage", "reconstruction", "auroc_empty", "auroc_own",
    "auroc_enemy", "auroc_paper", "auroc_sound", "stable_paper", "stable_sound", "tiles_sound",
    "cosine_probe", "cosine_mean", "nearest_probe", "probe_through", "fvu", "l0",
]  # fmt: skip


def _edits(run: Run, json: bool) -> None:
    """Each reader at its best scale."""
    from ..othello.edit import chosen_scales

    report(run, json)
    if not json:
        columns = "reader seed layers scale errors saved saved_low saved_high closed"
        print_rows(chosen_scales(run.table("errors/table"))[columns.split()])


study_command(othello, "edit", EditConfig, _edits)
