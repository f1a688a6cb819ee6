"""`interp knob …`"""

from __future__ import annotations

import tyro
from tyro.extras import SubcommandApp

from ..knob.data import DataConfig
from ..knob.finetune import FinetuneConfig
from ..knob.learn import LearnConfig
from ..knob.live import SteerConfig
from ..knob.run import RunConfig
from ..knob.search import SearchConfig
from ..store import Run, Store
from ..study import run_or_load
from .common import Fresh, Json, Out, Runs, command, print_table, report

knob = SubcommandApp()


@command(knob, "data")
def data(
    config: tyro.conf.OmitArgPrefixes[DataConfig],
    out: Out = None,
    runs: Runs = None,
    fresh: Fresh = False,
    json: Json = False,
) -> None:
    """Contexts that contradict facts, in parts that share no facts, and which the model knows."""
    made = run_or_load(config, Store(runs), out, fresh)
    report(made, json)
    if not json:
        _print(made, "data/items.parquet", ["relation", "subject", "told", "prior", "part"], 5)


@command(knob, "finetune")
def finetune(
    config: tyro.conf.OmitArgPrefixes[FinetuneConfig],
    out: Out = None,
    runs: Runs = None,
    fresh: Fresh = False,
    json: Json = False,
) -> None:
    """Train a small adapter that answers by the intent; PairAcc before and after it."""
    made = run_or_load(config, Store(runs), out, fresh)
    report(made, json)
    if not json:
        _print(made, "scores/scores.parquet", SCORES)


@command(knob, "search")
def search(
    config: tyro.conf.OmitArgPrefixes[SearchConfig],
    out: Out = None,
    runs: Runs = None,
    fresh: Fresh = False,
    json: Json = False,
) -> None:
    """The layers whose attention brings the answer to the last token, in four settings."""
    report(run_or_load(config, Store(runs), out, fresh), json)


@command(knob, "learn")
def learn(
    config: tyro.conf.OmitArgPrefixes[LearnConfig],
    out: Out = None,
    runs: Runs = None,
    fresh: Fresh = False,
    json: Json = False,
) -> None:
    """The direction that decides between context and prior knowledge, against three baselines."""
    _learned(run_or_load(config, Store(runs), out, fresh), json)


@command(knob, "steer")
def steer(
    config: tyro.conf.OmitArgPrefixes[SteerConfig],
    out: Out = None,
    runs: Runs = None,
    fresh: Fresh = False,
    json: Json = False,
) -> None:
    """Turn the knob on a context and a question of your own."""
    made = run_or_load(config, Store(runs), out, fresh)
    report(made, json)


@command(knob, "run")
def run(
    config: tyro.conf.OmitArgPrefixes[RunConfig],
    out: Out = None,
    runs: Runs = None,
    fresh: Fresh = False,
    json: Json = False,
) -> None:
    """Everything, from the model as it comes to a working knob; the same command resumes."""
    made = run_or_load(config, Store(runs), out, fresh)
    _learned(made, json)
    if not json:
        _print(made, "scores/scores.parquet", SCORES)


SCORES = ["setting", "part", "pair_acc", "pair_acc_low", "pair_acc_high", "accuracy", "pairs"]


def _learned(made: Run, json: bool) -> None:
    report(made, json)
    if not json:
        _print(made, "steer/scores.parquet", ["model", "direction", *SCORES[1:]])


def _print(made: Run, name: str, columns: list[str], limit: int = 1000) -> None:
    import pandas as pd

    rows = pd.read_parquet(made.path / name)[columns].head(limit).round(3)
    print_table(columns, rows.astype(str).to_numpy().tolist())
