"""Figures of the kernels' benchmark: ratios to the bare product, and the roofline."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..plain_text import printable
from ..plots import BLUE, GREY, ORANGE, Figures, laid_out, literal, row_at_most, said
from ..runs.store import Run

NAMES = {
    "mm": "bare product, torch's threads",
    "mm_workers": "bare product, worker threads",
    "mm_screened": "bare bfloat16 product",
    "mm_screened8": "bare int8 product",
    "mm_screened16": "bare int16 product",
    "screened": "fused, bfloat16 screen, exact",
    "screened8": "fused, int8 screen, exact",
    "screened16": "fused, int16 screen, exact",
    "tiled": "fused, float32, exact",
    "naive": "naive torch",
    "topk": "torch, two topk, no statistics",
    "compiled": "torch.compile of the naive",
    "faiss": "faiss, top side, no statistics",
}
OURS = {**dict.fromkeys(("screened", "screened8", "screened16"), BLUE), "tiled": "#7fa3d6"}
DENSE = ("naive", "topk", "compiled")
"""Variants that write and read all logits."""
SYMBOLS = {
    **dict.fromkeys(OURS, "circle"),
    **{"naive": "x", "topk": "cross", "compiled": "diamond", "faiss": "square"},
}


def kernel_ratios(summary: pd.DataFrame) -> go.Figure:
    """Time of every variant as a ratio to the bare float32 product, one panel a shape.

    Bars are medians of interleaved repeats, whiskers the smallest and largest.
    """
    shapes = list(dict.fromkeys(summary["shape"]))
    figure = make_subplots(
        1, len(shapes), shared_yaxes=True, subplot_titles=list(map(literal, shapes))
    )
    for column, shape in enumerate(shapes, start=1):
        rows = summary[(summary["shape"] == shape) & summary["ratio"].notna()]
        rows = rows.sort_values("ratio", ascending=False)
        figure.add_bar(
            x=rows["ratio"],
            y=rows["variant"].map(NAMES),
            orientation="h",
            marker_color=[_colour(variant) for variant in rows["variant"]],
            error_x={
                "array": rows["ratio_max"] - rows["ratio"],
                "arrayminus": rows["ratio"] - rows["ratio_min"],
                "color": GREY,
            },
            text=[f"{ratio:.2f}" for ratio in rows["ratio"]],
            textposition="inside",
            insidetextanchor="start",  # the error bars are at the other end
            hovertemplate="%{y}: %{x:.3f}<extra></extra>",
            row=1,
            col=column,
        )
        figure.add_vline(1.0, line={"dash": "dash", "color": GREY}, row=1, col=column)
    figure.update_xaxes(title="time / bare float32 product", rangemode="tozero")
    figure.update_yaxes(automargin=True)
    laid_out(figure, "Both sides and all statistics, as a ratio to the bare product", 360)
    above = (
        "How long finding the top and bottom tokens takes, as a ratio to the matrix product alone "
        "(dashed, 1). Shorter is better. A surprise would be a fused variant behind naive torch."
    )
    fused = summary[summary["variant"].isin(OURS) & summary["ratio"].notna()]
    if fused.empty:
        return said(figure, above)
    best = row_at_most(fused, -fused["ratio"])
    naive = summary[(summary["variant"] == "naive") & (summary["shape"] == best["shape"])]["ratio"]
    shape = f" at {printable(str(best['shape']))}" if fused["shape"].nunique() > 1 else ""
    found = f"The best fused variant takes {best['ratio']:.2f} times the bare product{shape}"
    slow = float(naive.iloc[0]) if len(naive) else float("nan")
    found += f"; naive torch {slow:.2f} times." if slow == slow else "."
    return said(figure, above, found)


def kernel_roofline(summary: pd.DataFrame, shapes: pd.DataFrame, bandwidth: float) -> go.Figure:
    """Operations a second against operations a byte, under what this machine was measured to do.

    Args:
        summary, shapes: the benchmark's tables.
        bandwidth: bytes a second read from memory.

    The roofs are the memory's rate and the best bare products'. A fused variant moves its operands
    and results once; the dense ones also write and read the logits.
    """
    rows = summary.merge(shapes, on="shape").dropna(subset=["ratio"])
    share = rows["rows"] * rows["vocabulary"] / (rows["job_rows"] * rows["job_vocabulary"])
    moved = rows["bytes"].where(~rows["variant"].isin(DENSE), rows["dense_bytes"])
    rate = rows["operations"] / (rows["job_s"] * share) / 1e9
    rows = rows.assign(rate=rate, intensity=rows["operations"] / moved)
    figure = go.Figure()
    grid = np.geomspace(rows["intensity"].min() / 4, rows["intensity"].max() * 2, 200)
    for variant in [name for name in NAMES if name.startswith("mm_")]:
        peak = rows[rows["variant"] == variant]["rate"].max()
        if np.isfinite(peak):
            roof = np.minimum(grid * bandwidth / 1e9, peak)
            figure.add_scatter(
                x=grid, y=roof, mode="lines", line={"color": GREY, "dash": _dash(variant)},
                name=NAMES[variant], hoverinfo="name",
            )  # fmt: skip
    for variant, symbol in SYMBOLS.items():
        part = rows[rows["variant"] == variant]
        if len(part):
            figure.add_scatter(
                x=part["intensity"], y=part["rate"], mode="markers", name=NAMES[variant],
                marker={"size": 10, "color": _colour(variant), "symbol": symbol},
                text=part["shape"],
                hovertemplate="%{text}: %{y:.0f} GFLOP/s at %{x:.0f} FLOP a byte",
            )  # fmt: skip
    figure.update_xaxes(title="operations a byte that must move", type="log")
    figure.update_yaxes(title="GFLOP/s", type="log")
    laid_out(figure, "Roofline", 420)
    figure.update_layout(showlegend=True, legend={"orientation": "h", "y": -0.25})
    above = (
        "How fast each variant computes, against how much it computes for every byte it must move. "
        "The grey roofs are what this machine can do. A surprise would be a point above its roof, "
        "or a fused variant far below it."
    )
    if rows["rate"].isna().all():
        return said(figure, above)
    best = row_at_most(rows, rows["rate"])
    found = f"The fastest is {NAMES[best['variant']]}: {best['rate']:.0f} GFLOP/s."
    return said(figure, above, found)


def _dash(variant: str) -> str:
    return "solid" if variant == "mm_workers" else "dot"


def _colour(variant: str) -> str:
    return OURS.get(variant, GREY if variant.startswith("mm") else ORANGE)


def of_run(run: Run) -> Figures:
    """The figures of a run of this analysis, by name."""
    summary, shapes = run.table("summary/variants"), run.table("shapes/shapes")
    bandwidth = float(run.manifest["bandwidth_bytes_per_s"])
    return {
        "ratios": lambda: kernel_ratios(summary),
        "roofline": lambda: kernel_roofline(summary, shapes, bandwidth),
    }
