"""What `interp circuits truth` and `interp circuits steer` print."""

from __future__ import annotations

import pandas as pd

from ..circuits.summaries import ABLATIONS, ENOUGH, NEARLY_ALL
from ..runs.store import Run
from .common import print_rows, say

FEW = 30
"""Neurons whose share is printed with its interval, where they were tried."""


def truth(run: Run) -> None:
    """Curves, how many neurons are needed, and correlations with real patching."""
    _left_out(run.table("pairs"))
    shares = run.table("shares")
    for ablation, patched in ABLATIONS.items():
        for part in ("moved", "kept"):
            rows = shares[(shares["ablation"] == ablation) & (shares["part"] == part)]
            say(f"median share {part} by the first n neurons, {patched}:")
            print_rows(_by_count(rows[rows["rule"] != "all"]))
    few = shares.query("n == @FEW and part == 'moved' and ablation == 'resample'")
    if len(few):
        say(f"the gap that {FEW} neurons move, and how many pairs reach {NEARLY_ALL:.0%} of it:")
        print_rows(
            _with_intervals(few, "median", "nearly_all"), "task rule pairs median nearly_all"
        )
    say(f"neurons for {ENOUGH:.0%}, of so many pairs that get there:")
    print_rows(
        _needed(run.table("needed"), max(run.config["counts"])),
        "task rule part patched pairs reached neurons",
    )
    say("correlation of predicted and real effects, median over pairs:")
    print_rows(_with_intervals(run.table("correlations"), "r"), "task what rule pairs r")


def steer(run: Run) -> None:
    """Slope and r2 of the real change on the predicted one."""
    print_rows(
        _with_intervals(run.table("fits"), "slope", "r2"), "task reach rule pairs neurons slope r2"
    )


def _left_out(pairs: pd.DataFrame) -> None:
    counts = pairs.groupby("task", sort=False)["reason"].agg(
        pairs="size", used=lambda reasons: int((reasons == "").sum())
    )
    print_rows(counts.reset_index())
    for row in pairs[pairs["reason"] != ""].drop_duplicates(["task", "reason"]).itertuples():
        say(f"left out of {row.task}: '{row.prompt}', {row.reason}")


def _by_count(rows: pd.DataFrame) -> pd.DataFrame:
    table = rows.pivot(index=["task", "rule"], columns="n", values="median")
    order = rows.drop_duplicates(["task", "rule"]).set_index(["task", "rule"]).index
    table.columns = pd.Index([str(n) for n in table.columns])
    return table.loc[order].map(_plain).reset_index()


def _needed(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """How many neurons; where most pairs do not get there with the largest count, that is said."""
    ends = rows[["neurons", "neurons_low", "neurons_high"]].to_numpy()
    texts = [[_plain(n, 0) if n < float("inf") else f"> {most}" for n in row] for row in ends]
    said = [n if n == low == high else f"{n} ({low} to {high})" for n, low, high in texts]
    return rows.assign(neurons=said, patched=rows["ablation"].map(ABLATIONS))


def _with_intervals(rows: pd.DataFrame, *names: str) -> pd.DataFrame:
    """Each value with the ends of its interval behind it, as text."""
    texts = {
        name: [
            f"{_plain(value)} ({_plain(low)} to {_plain(high)})"
            for value, low, high in zip(
                rows[name], rows[f"{name}_low"], rows[f"{name}_high"], strict=True
            )
        ]
        for name in names
    }
    return rows.assign(**texts)


def _plain(value: float, digits: int = 2) -> str:
    """Without the sign of what is rounded to 0."""
    return f"{round(value, digits) + 0.0:.{digits}f}"
