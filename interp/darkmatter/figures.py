"""Figures of the dark matter of SAEs: bands over width, measures, tokens, costs, planted faults."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ..plain_text import printable
from ..plots import (
    BLUE,
    GREY,
    ORANGE,
    SEQUENTIAL,
    Figures,
    label,
    laid_out,
    literal,
    said,
)
from ..runs.store import Run
from .results import bounded
from .widths import bands

BANDS = {"nonlinear": ORANGE, "linear": BLUE, "absent": "#9cbfe3", "encoder": GREY}
"""Parts of FVU from the bottom up, and their colours."""
NORMS = {
    "r2_norm x": "x",
    "r2_norm output": "SAE(x)",
    "r2_norm error": "error",
    "r2_norm linear": "linear part",
    "r2_norm nonlinear": "nonlinear part",
}
"""Measures of R² of squared lengths, and what each is called."""
VECTORS = {
    "r2_vector_weighted": "error vector, by variance",
    "r2_vector": "error vector, mean over outputs",
    "r2_vector_weighted_corrected": "by variance, shrinkage out",
}
"""Measures of R² of vectors, and what each is called."""
WORSE = "linear below 0: the linear map predicts held-out errors worse than none"
BELOW = {"orientation": "h", "y": -0.3}


def error_bands(bands: pd.DataFrame) -> go.Figure:
    """The parts of each SAE's FVU (`widths.bands`), from narrow to wide in each group. A
    part below 0 is drawn below 0, and what is above it then ends above the FVU."""
    figure = go.Figure()
    places = [bands["group"].map(literal).tolist(), bands["d_sae"].astype(str).tolist()]
    for part, colour in BANDS.items():
        if bands[part].notna().any():
            figure.add_bar(
                x=places, y=bands[part], name=part, marker_color=colour,
                hovertemplate=f"{part} %{{y:.4f}}<extra></extra>",
            )  # fmt: skip
    figure.update_yaxes(title="fraction of variance unexplained")
    worse = f"<br><sup>{WORSE}</sup>" if (bands["linear"] < 0).any() else ""
    laid_out(figure, f"What the error is made of, over width{worse}", height=420)
    figure.update_layout(barmode="relative", showlegend=True, legend=BELOW)
    above = (
        "The variance that each SAE misses (FVU), split into what is no linear function of x, what "
        "is one, and what falls with width. A surprise would be a nonlinear part that falls with "
        "width: it is thought to stay."
    )
    whole = bands.assign(whole=bands[list(BANDS)].sum(axis=1))
    return said(figure, above, _widest(whole))


def _widest(whole: pd.DataFrame) -> str:
    """The FVU of the widest SAE, and its nonlinear share; of several as wide, the group is said."""
    if whole.empty:
        return ""
    as_wide = whole[whole["d_sae"] == whole["d_sae"].max()]
    row = as_wide.iloc[0]
    group = f" ({printable(str(row['group']))})" if len(as_wide) > 1 else ""
    found = f"At width {int(row['d_sae']):,}{group} the FVU is {row['whole']:.3f}"
    if not row["whole"] > 0 or pd.isna(row["nonlinear"]):
        return f"{found}."
    return f"{found}, {row['nonlinear'] / row['whole']:.0%} of it nonlinear."


def error_measures(measures: pd.DataFrame, shown: dict[str, str]) -> go.Figure:
    """Some measures (name -> label) of every SAE, with 95 % intervals where it has them."""
    colours = [BLUE, ORANGE, GREY, "#6a51a3", "#9cbfe3"]
    figure = go.Figure()
    for (measure, name), colour in zip(shown.items(), colours, strict=False):
        part = measures[measures["measure"] == measure]
        figure.add_scatter(
            x=part["sae"].map(literal), y=part["value"], name=name, mode="markers",
            marker={"color": colour, "size": 9},
            error_y=_error_bars(part, "value"),
        )  # fmt: skip
    known = measures[measures["measure"].isin(shown)]["low"].notna().any()
    ends = "with 95 % intervals over documents" if known else "too few documents for intervals"
    title = "R² of the error vector" if "r2_vector" in shown else "R² of squared lengths"
    laid_out(figure, f"{title}, predicted from x<br><sup>{ends}</sup>", height=420)
    # beside each other: of two alike, one would hide the other
    figure.update_layout(showlegend=True, legend=BELOW, scattermode="group", scattergap=0.4)
    above = (
        "How much of it a linear map of the activation x predicts on held-out contexts; 1 is all. "
        + (
            "A surprise would be a value near 0: the error would be noise to x."
            if "r2_vector" in shown
            else "A surprise would be an error whose length x does not know."
        )
    )
    own = measures[measures["measure"].isin(shown)].dropna(subset=["value"])
    means = own.groupby("measure", sort=False)["value"].mean()
    named = "; ".join(f"{shown[str(name)]} {mean:.2f}" for name, mean in means.items())
    return said(figure, above, f"Means over the SAEs: {named}." if named else "")


def token_scatter(tokens: pd.DataFrame, small: str, large: str, part: str) -> go.Figure:
    """Lengths of two SAEs' errors (or their nonlinear parts): a point for each token."""
    keys = ["context", "position", "text"]
    one, other = (tokens[tokens["sae"] == name].set_index(keys)[part] for name in (small, large))
    both = pd.DataFrame({"one": one**0.5, "other": other**0.5}).reset_index()
    figure = go.Figure(
        go.Scatter(
            x=both["one"], y=both["other"], mode="markers",
            marker={"color": BLUE, "size": 4, "opacity": 0.5}, text=_in_context(both),
            hovertemplate="%{text}<br>%{x:.1f}, %{y:.1f}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_xaxes(title=f"length at {literal(small)}")
    figure.update_yaxes(title=f"length at {literal(large)}")
    laid_out(figure, f"The {literal(part)} of the same tokens", height=460)
    above = (
        "Each point is a token, its error's length under two SAEs. On a rising line the same "
        "tokens are hard for both. A surprise would be a cloud without a slope: what one misses "
        "the other would find."
    )
    known = both.dropna(subset=["one", "other"])
    r = known["one"].corr(known["other"]) if len(known) > 1 else float("nan")
    lower = float((known["other"] < known["one"]).mean())
    found = f"Correlation {r:.2f}; t" if r == r else "T"
    found += f"he second SAE's error is the shorter at {lower:.0%} of {len(known):,} tokens."
    return said(figure, above, found if len(known) else "")


def downstream_bars(costs: pd.DataFrame) -> go.Figure:
    """Percent of the lost cross-entropy that returns with each part of the error: a group of bars
    for each SAE. No bar where the SAE may have cost nothing, so that any percentage may be true."""
    settings = {
        "sae + linear": ("linear error back", BLUE),
        "sae + nonlinear": ("nonlinear error back", ORANGE),
        "scaled + linear": ("linear back, shrinkage out", "#9cbfe3"),
        "scaled + nonlinear": ("nonlinear back, shrinkage out", "#f0c38f"),
    }
    figure = go.Figure()
    for setting, (name, colour) in settings.items():
        part = costs[(costs["setting"] == setting) & bounded(costs)]
        figure.add_bar(
            x=part["sae"].map(literal), y=part["recovered"], name=name, marker_color=colour,
            error_y=_error_bars(part, "recovered"),
        )  # fmt: skip
    figure.update_yaxes(title="percent recovered")
    laid_out(figure, "What the parts cost the model", height=420)
    figure.update_layout(barmode="group", showlegend=True, legend=BELOW)
    above = (
        "Of the loss that an SAE costs the model, the percent that returns when one part of its "
        "error is given back. A surprise would be a nonlinear part that returns more than the "
        "linear one of the same size."
    )
    own = costs[bounded(costs) & costs["setting"].isin(["sae + linear", "sae + nonlinear"])]
    means = own.groupby("setting")["recovered"].mean().dropna()
    named = "; ".join(f"{settings[str(name)][0]} {mean:.0f} %" for name, mean in means.items())
    return said(figure, above, f"Means over the SAEs: {named}." if named else "")


def fault_map(measures: pd.DataFrame, measure: str, title: str) -> go.Figure:
    """A measure of planted faults: rows are shares of absent latents, columns noise."""
    part = measures[measures["measure"] == measure].copy()
    part[["absent", "noise"]] = part["sae"].str.extract(r"absent (\S+), noise (\S+)").astype(float)
    grid = part.pivot(index="absent", columns="noise", values="value")
    figure = go.Figure(
        go.Heatmap(
            x=[f"{value:g}" for value in grid.columns],
            y=[f"{value:g}" for value in grid.index],
            z=grid.to_numpy(),
            colorscale=SEQUENTIAL,
            texttemplate="%{z:.3f}",
            hovertemplate="absent %{y}, noise %{x}: %{z:.4f}<extra></extra>",
        )
    )
    figure.update_xaxes(title="noise, in variances of x", type="category")
    figure.update_yaxes(title="share of latents absent", type="category")
    laid_out(figure, title, height=300)
    above = (
        "Faults of known size were planted: latents taken away (up) and noise (right). The number "
        "should follow what was planted and nothing else. A surprise would be a number that moves "
        "along the wrong axis."
    )
    return said(figure, above, _faults(part.dropna(subset=["value"])))


def _faults(part: pd.DataFrame) -> str:
    """The ends of a measure over the faults that were planted (columns absent, noise, value), and
    what it is with none, where that was measured."""
    if part.empty:
        return ""
    none = part[(part["absent"] == 0) & (part["noise"] == 0)]["value"]
    found = f"From {part['value'].min():.3f} to {part['value'].max():.3f}"
    return f"{found}; with nothing planted {none.iloc[0]:.3f}." if len(none) else f"{found}."


def _error_bars(rows: pd.DataFrame, value: str) -> dict[str, Any]:
    above, below = rows["high"] - rows[value], rows[value] - rows["low"]
    return {"array": above, "arrayminus": below, "thickness": 1}


def _in_context(tokens: pd.DataFrame) -> list[str]:
    """Every token in bold after the eight before it."""
    shown = []
    for _, part in tokens.groupby("context", sort=False):
        texts = [label(text) for text in part["text"]]
        shown += [
            f"{''.join(texts[max(at - 8, 0) : at])}<b>{text}</b>" for at, text in enumerate(texts)
        ]
    return shown


def of_run(run: Run) -> Figures:
    """The figures of a run of this analysis, by name."""
    if run.study == "darkmatter.synthetic":
        measures = run.table("measures")
        titles = {"fvu": "FVU of the planted faults", "fvu_nonlinear": "Its nonlinear part"}
        return {n: partial(fault_map, measures, n, title) for n, title in titles.items()}
    if not run.has("measures"):
        return {}
    made: Figures = {
        "bands": lambda: error_bands(bands(run.table("measures"))),
        "vectors": lambda: error_measures(run.table("measures"), VECTORS),
        "norms": lambda: error_measures(run.table("measures"), NORMS),
    }
    if run.has("downstream"):
        made["downstream"] = lambda: downstream_bars(run.table("downstream"))
    return made
