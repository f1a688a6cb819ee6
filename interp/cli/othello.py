"""`interp othello …`"""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

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
from . import common
from .common import Fresh, Json, Out, Runs, command, study_command

othello = SubcommandApp()


@command(othello, "play")
def play(
    moves: tyro.conf.Positional[tuple[str, ...]] = (),
    model: str = "othello-gpt",
    seed: int = 0,
    plies: int = 20,
    json: Json = False,
) -> None:
    """Play moves on a board: legal moves, stable discs, and the moves that the model predicts.

    Args:
        moves: For example f5 d6 c3; without moves, a random game.
        model: An OthelloGPT: the shipped one, or a folder.
        seed: Seed of the random game.
        plies: Number of moves of the random game.
    """
    import pandas as pd

    from ..othello import position as boards
    from ..othello.board_labels import TILES
    from ..othello.games import random_games

    if not 1 <= plies <= 59:
        raise UserError(f"--plies must be between 1 and 59, not {plies}")
    if seed < 0:
        raise UserError(f"--seed must be at least 0, not {seed}")
    tokens = boards.parse_moves(" ".join(moves)) if moves else random_games(1, seed)[0, :plies]
    position = boards.position_after(tokens[tokens > 0])
    # only now: a mistyped move shows before torch is imported
    from ..model.subject import open_subject
    from ..othello.study import open_othello

    open_othello(model)
    chances = boards.move_probabilities(open_subject(model), position.tokens)
    best = chances.argsort()[::-1][: max(10, int(position.legal.sum()))]
    likely = chances[best].astype(float).round(6)
    names = [TILES[square] for square in best]
    rows = pd.DataFrame({"move": names, "probability": likely, "legal": position.legal[best]})
    facts = {
        "moves": boards.move_names(position.tokens),
        "next": boards.PLAYERS[position.mover],
        "black": int((position.absolute == 1).sum()),
        "white": int((position.absolute == 2).sum()),
        "legal": int(position.legal.sum()),
        "stable": int(position.sound.sum()),
        "probability_legal": round(float(chances[position.legal].sum()), 6),
    }
    if common.answered(json, "othello.play", facts, results=rows.to_dict("records")):
        return
    common.say(*boards.board_text(position).split("\n"))
    common.print_metrics(facts)
    common.print_rows(rows)


@command(othello, "train")
def train(config: tyro.conf.OmitArgPrefixes[TrainConfig], json: Json = False) -> None:
    """Train an OthelloGPT on random games; the same command again continues from a checkpoint."""
    from ..othello.train import train

    train(config)
    score = jsonlib.loads((config.out / "card.json").read_text())["held_out"]
    if not common.answered(json, "othello.train", score, config.out):
        common.say(config.out)
        common.print_metrics(score, ".6g")


study_command(othello, SaeConfig)
study_command(othello, ProbeConfig)


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

    run = run_or_load(config, Store(runs), out, fresh)
    rows = run.table("scores")
    sentences = findings.sentences(rows, run.metrics)
    if picture:
        from ..othello import figures

        try:
            figures.othello_layers(findings.table(rows)).write_html(picture)
        except OSError as error:
            raise UserError(f"cannot write {picture}: {error.strerror or error}") from error
    if common.answered(json, run.study, run.metrics, run.path, findings=sentences):
        return
    common.say(run.path)
    grid = findings.wide(rows, MEASURES)
    common.print_rows(grid.rename(columns="layer {}".format).reset_index())
    common.say(*(f"- {sentence}" for sentence in sentences))


MEASURES = [
    "accuracy", "accuracy_colour", "coverage", "reconstruction", "auroc_empty", "auroc_own",
    "auroc_enemy", "auroc_paper", "auroc_sound", "stable_paper", "stable_sound", "tiles_sound",
    "cosine_probe", "cosine_mean", "nearest_probe", "probe_through", "fvu", "l0",
]  # fmt: skip


def _edits(run: Run) -> None:
    """Each reader at its best scale."""
    from ..othello.edit import chosen_scales

    columns = "reader seed layers scale errors saved saved_low saved_high unit closed"
    common.print_rows(chosen_scales(run.table("errors/table")), columns)


study_command(othello, EditConfig, _edits)
