"""Figures of a survey: all latents by density."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..directions.figures import gains
from ..model.vocabulary import visible
from ..plots import BLUE, Figures, laid_out, literal, said
from ..runs.store import Run
from . import figures_measure, search
from .card import Card, bars


def densities(rows: pd.DataFrame) -> go.Figure:
    """How many latents have which density, on a log scale (`search.densities`)."""
    alive = rows["density"][rows["density"] > 0]
    logs = np.log10(alive.to_numpy(float))
    counts, edges = np.histogram(logs, 40) if len(logs) else (np.zeros(0), np.zeros(1))
    figure = go.Figure(
        go.Bar(
            x=10 ** ((edges[1:] + edges[:-1]) / 2),
            y=counts,
            width=np.diff(10**edges),
            marker_color=BLUE,
            hovertemplate="fires on %{x:.2g} of the tokens<br>%{y} latents<extra></extra>",
        )
    )
    figure.update_xaxes(title="share of the tokens that a latent fires on", type="log")
    figure.update_xaxes(exponentformat="power")
    figure.update_yaxes(title="latents")
    dead = len(rows) - len(alive)
    laid_out(figure, f"{len(rows):,} latents by density; {dead:,} never fire", height=260)
    above = (
        "How often each latent fires. Most SAEs have one hill; latents far to the right fire on "
        "almost everything and mean little. A surprise would be a second hill."
    )
    if not len(alive):
        return said(figure, above)
    often = int((alive > 0.1).sum())
    found = (
        f"Half of those that fire do so on less than {alive.median():.2%} of the tokens; "
        f"{often:,} fire on more than 10 %."
    )
    return said(figure, above, found)


def histogram(card: Card) -> go.Figure:
    """How often a latent fires how strongly; half octaves of its size."""
    drawn = bars(card)
    figure = go.Figure(
        go.Bar(
            x=[(low + high) / 2 for low, high, _ in drawn],
            y=[count for *_, count in drawn],
            width=[high - low for low, high, _ in drawn],
            marker_color=BLUE,
            customdata=[[f"{low:.3g} to {high:.3g}"] for low, high, _ in drawn],
            hovertemplate="%{customdata[0]}<br>%{y} times<extra></extra>",
        )
    )
    figure.update_xaxes(title="size where it fires", type="log")
    figure.update_yaxes(title="times")
    laid_out(figure, f"Activations of {literal(card.title)}", height=240)
    above = (
        "How strongly it fires where it fires. Many weak and few strong is usual, and the strong "
        "ones say best what it means. A surprise would be a second hill: two meanings."
    )
    most = max((count for *_, count in drawn), default=0)
    there = [(low, high) for low, high, count in drawn if count == most]
    found = ""
    if len(there) == 1:  # of several that are as high none is the most
        found = f"Most often between {there[0][0]:.3g} and {there[0][1]:.3g}."
    return said(figure, above, found)


def effects_gains(rows: pd.DataFrame) -> go.Figure:
    """Gains of a run of `saes.effects`, each latent with its words."""
    words = (" ".join(map(visible, words[:3])) for words in rows["words"])
    names = [f"{latent} {said}" for latent, said in zip(rows["latent"], words, strict=True)]
    return gains(rows, names, "latents")


def of_run(run: Run) -> Figures:
    """The figures of a survey, a measurement or effects by their names."""
    if run.study == "saes.measure":
        return figures_measure.of_run(run)
    if run.study == search.STUDY:
        return {"densities": lambda: densities(search.densities(run))}
    if run.study == "saes.effects":
        return {"gains": lambda: effects_gains(run.table("effects/latents"))}
    return {}
