"""Figures of `circuits.truth` and `circuits.steer`, one a table."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..plain_text import printable
from ..plots import BLUE, GREY, ORANGE, Figures, interval_bars, laid_out, literal, said
from ..runs.store import Run
from .summaries import ABLATIONS, ENOUGH

COLOURS = {
    **{"half": BLUE, "gate": "#6a51a3", "gradient": ORANGE, "integrated": "#2a9d5c"},
    **{"difference": "#b0516b", "random": GREY},
}
PARTS = {
    "moved": "share of the gap that the first n neurons move",
    "kept": "share of the target that the first n neurons keep",
}


def of_run(run: Run) -> Figures:
    """The figures of a run by name."""
    if run.study == "circuits.steer":
        return {"sweep": lambda: sweep(run.table("sweep")), "fits": lambda: fits(run.table("fits"))}
    tasks = list(dict.fromkeys(run.table("shares")["task"]))
    drawn: Figures = {
        f"{part} {task}": partial(_shares, run, task, part) for task in tasks for part in PARTS
    }
    return drawn | {
        "needed": lambda: needed(run.table("needed")),
        "correlations": lambda: correlations(run.table("correlations")),
        "pairs": lambda: gaps(run.table("pairs")),
        "patched": lambda: scatter(run.table("patched")),
    }


def _shares(run: Run, task: str, part: str) -> go.Figure:
    return shares(run.table("shares"), task, part)


def shares(table: pd.DataFrame, task: str, part: str, ablation: str = "resample") -> go.Figure:
    """Median shares by number of neurons, a line a rule, with 95 % intervals over pairs."""
    figure = go.Figure()
    of_task = (table["task"] == task) & (table["part"] == part) & (table["ablation"] == ablation)
    for rule, rows in table[of_task & (table["rule"] != "all")].groupby("rule", sort=False):
        figure.add_scatter(
            x=rows["n"], y=rows["median"], name=literal(rule), mode="lines+markers",
            line={"color": COLOURS.get(str(rule), GREY)},
            error_y=interval_bars(rows, "median", thickness=1),
        )  # fmt: skip
    figure.add_hline(y=1, line={"color": GREY, "dash": "dot"})
    figure.update_xaxes(title="neurons, n", type="log")
    figure.update_yaxes(title=PARTS[part])
    title = f"{literal(task)}: medians over pairs, {ABLATIONS[ablation]}"
    laid_out(figure, title, height=420, legend=True)
    above = (
        "A line a rule: how far its first n neurons go, in its own order; 1 (dotted) is all. A "
        "surprise would be a rule below random neurons, or one that is at 1 with a handful."
    )
    own = table[of_task & ~table["rule"].isin(["all", "random"])].dropna(subset=["median"])
    return said(figure, above, _furthest(own[own["n"] == own["n"].max()]))


def _furthest(rows: pd.DataFrame) -> str:
    """The rule whose neurons, as many as any has, go furthest; the rules, where several do."""
    if rows.empty:
        return ""
    most, n = rows["median"].max(), int(rows["n"].iloc[0])
    first = [printable(str(rule)) for rule in rows[rows["median"] == most]["rule"]]
    names = f"{first[0]} gets" if len(first) == 1 else f"{', '.join(first)} get"
    further = "furthest" if len(first) < len(rows) or len(rows) == 1 else "equally far"
    return f"{names} {further}: {most:.2f} with {n:,} neurons."


def needed(table: pd.DataFrame, part: str = "kept", ablation: str = "resample") -> go.Figure:
    """The number of neurons for 80 %, task by task; none where most pairs do not get there."""
    rows = table[(table["part"] == part) & (table["ablation"] == ablation)]
    figure = _bars(rows.replace(float("inf"), float("nan")), "task", "neurons")
    figure.update_yaxes(title=f"neurons to keep {ENOUGH:.0%}", type="log")
    laid_out(figure, "No bar: not reached by most pairs", height=380, legend=True)
    above = (
        f"Neurons that a rule needs to keep {ENOUGH:.0%} of the target; fewer is better. A "
        "surprise would be random neurons that need as few."
    )
    told = rows[np.isfinite(rows["neurons"])].groupby("rule", sort=False)["neurons"].median()
    named = "; ".join(f"{rule} {number:,.0f}" for rule, number in told.items())
    return said(
        figure,
        above,
        f"Medians over the tasks that are reached: {named}."
        if named
        else "No rule reaches it in most pairs.",
    )


def correlations(table: pd.DataFrame) -> go.Figure:
    """Pearson's r of predicted and real effects, by task and kind of patch."""
    rows = table.assign(group=table["task"] + ", " + table["what"])
    figure = _bars(rows, "group", "r")
    figure.update_yaxes(title="r with real patching", range=[-1, 1])
    laid_out(figure, "Predicted and real effects: medians over pairs", 400, legend=True)
    above = (
        "How well a rule's prediction for each neuron or position agrees with patching it; 1 is "
        "perfect. A surprise would be a bar below 0: the rule would have the sign wrong."
    )
    told = table.groupby("rule", sort=False)["r"].mean().dropna()
    named = "; ".join(f"{rule} {r:.2f}" for rule, r in told.items())
    return said(figure, above, f"Means over tasks and kinds of patch: {named}." if named else "")


def fits(table: pd.DataFrame) -> go.Figure:
    """Slope and r² of a steering run."""
    figure = go.Figure()
    for value, colour in (("slope", BLUE), ("r2", ORANGE)):
        rows = table[table["reach"] == "all"]
        figure.add_bar(
            x=[literal(rule) for rule in rows["rule"]], y=rows[value], name=value.replace("2", "²"),
            marker={"color": colour}, error_y=interval_bars(rows, value, thickness=1),
        )  # fmt: skip
    laid_out(figure, "Real change on predicted change", height=360, legend=True)
    above = (
        "The line through real changes on predicted ones: slope 1 and r² 1 are a perfect "
        "prediction. A surprise would be a slope far from 1 with a high r²: wrong by one factor."
    )
    known = table[table["reach"] == "all"].dropna(subset=["slope", "r2"])
    fitted = known.to_dict("records")
    named = "; ".join(f"{r['rule']} slope {r['slope']:.2f}, r² {r['r2']:.2f}" for r in fitted)
    return said(figure, above, f"{named}." if named else "")


def gaps(table: pd.DataFrame) -> go.Figure:
    """The gap of every pair, by task; those left out in grey."""
    figure = go.Figure()
    for left_out, colour in ((False, BLUE), (True, GREY)):
        rows = table[(table["reason"] != "") == left_out]
        figure.add_box(
            x=[literal(task) for task in rows["task"]], y=rows["gap"], boxpoints="all",
            text=[literal(prompt) for prompt in rows["prompt"]],
            name="left out" if left_out else "used", marker={"color": colour},
        )  # fmt: skip
    figure.update_layout(boxmode="group")
    figure.update_yaxes(title="gap, logits")
    laid_out(figure, "What the counterfactual takes away", height=380, legend=True)
    above = (
        "The target at the prompt less at its counterfactual, a pair a point. Pairs in grey are "
        "left out: there is too little to explain. A surprise would be a used pair below 0."
    )
    used = table[table["reason"] == ""]["gap"]
    found = f"{len(used):,} of {len(table):,} pairs are used; their median gap is "
    return said(figure, above, f"{found}{used.median():.2f} logits." if len(used) else "")


def scatter(table: pd.DataFrame, what: str = "neuron", rule: str = "half") -> go.Figure:
    """Real effects against predicted ones, a patch a point."""
    return _points(table[table["what"] == what], (rule,), f"{what}s patched one by one")


def sweep(table: pd.DataFrame) -> go.Figure:
    """Real changes against predicted ones, a clamp a point."""
    return _points(table, ("gradient", "half"), "Neurons clamped one by one")


def _points(rows: pd.DataFrame, rules: tuple[str, ...], title: str) -> go.Figure:
    figure = go.Figure()
    where = zip(rows["layer"], rows["position"], rows["neuron"], strict=True)
    names = [f"layer {layer}, position {place}, neuron {n}" for layer, place, n in where]
    for rule in rules:
        figure.add_scattergl(
            x=rows[rule], y=rows["real"], mode="markers", name=rule, text=names,
            marker={"color": COLOURS[rule], "size": 4, "opacity": 0.5},
        )  # fmt: skip
    ends = [float(rows[list(rules)].min().min()), float(rows[list(rules)].max().max())]
    figure.add_scatter(
        x=ends, y=ends, mode="lines", line={"color": GREY, "dash": "dot"}, name="as predicted"
    )
    figure.update_xaxes(title="predicted, logits")
    figure.update_yaxes(title="real, logits")
    laid_out(figure, title, height=420, legend=True)
    above = (
        "Each point is one neuron: on the dotted line the real change is the predicted one. A "
        "surprise would be a cloud along another line, or points far off at large predictions."
    )
    known = {rule: rows[rule].corr(rows["real"]) for rule in rules if len(rows) > 1}
    told = [f"{rule} {r:.2f}" for rule, r in known.items() if r == r]
    found = f"Correlation over {len(rows):,} patches: {'; '.join(told)}." if told else ""
    return said(figure, above, found)


def _bars(rows: pd.DataFrame, across: str, value: str) -> go.Figure:
    figure = go.Figure()
    for rule, part in rows.groupby("rule", sort=False):
        figure.add_bar(
            x=[literal(name) for name in part[across]], y=part[value], name=literal(rule),
            marker={"color": COLOURS.get(str(rule), GREY)},
            error_y=interval_bars(part, value, thickness=1),
        )  # fmt: skip
    return figure.update_layout(barmode="group")
