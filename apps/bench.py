"""The benchmark page: the time of the projections as a ratio to the bare matrix product."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from interp import columns
from interp.apps.columns import shown_table
from interp.apps.common import errors_in_place, table
from interp.apps.offering import offer_run
from interp.apps.picking import pick_run
from interp.apps.shown import charts
from interp.apps.words import plain
from interp.bench import figures
from interp.runs.store import Run

NUMBERS = ("certified_ratio", "fp32_ratio", "naive_ratio", "certified_share")
"""Metrics of a shape."""


@errors_in_place()
def page() -> None:
    st.title("Kernel benchmark")
    run = pick_run("bench.kernels")
    bandwidth = run.manifest["bandwidth_bytes_per_s"]
    st.caption(
        f"{run.manifest['threads']:,} thread(s), {run.config['repeats']:,} interleaved repeats; "
        f"memory reads {bandwidth / 1e9:.1f} GB/s. The Llama shapes are measured on a part of the "
        "vocabulary and of the vectors; the time of the whole job is extrapolated."
    )
    for shape, metrics in run.metrics["shapes"].items():
        _numbers(shape, metrics)
    summary, shapes = table(run, "summary/variants"), table(run, "shapes/shapes")
    charts("ratios", figures.kernel_ratios(summary))
    charts("roofline", figures.kernel_roofline(summary, shapes, bandwidth))
    st.subheader("Every variant")
    names = ["shape", "variant", "ratio", "ratio_cpu", "job_s", "peak_bytes", "missing"]
    shown_table(summary[names], "variants", run.study)
    st.subheader("Operations and bytes")
    shown_table(shapes, "shapes", run.study)
    _accuracy(run)
    drawn = "from interp.bench import figures\nfigures.kernel_ratios(run.table('summary/variants'))"
    offer_run(summary, "kernels", run, drawn)


def _numbers(shape: str, metrics: dict[str, float]) -> None:
    st.markdown(f"**{plain(shape)}**")
    shown = [name for name in NUMBERS if name in metrics]
    for column, name in zip(st.columns(max(len(shown), 1)), shown, strict=False):
        about = columns.column(name, "bench")
        value = columns.number(metrics[name], about.kind)
        column.metric(plain(about.words), plain(value), help=plain(about.help))


def _accuracy(run: Run) -> None:
    if not run.has("accuracy/shares") or (shares := table(run, "accuracy/shares")).empty:
        st.caption("Exactness was not measured in this run: --accuracy-rows says on how many rows.")
        return
    st.subheader("Exactness")
    wide = shares.pivot(index=["data", "k"], columns="impl", values=["certified", "exact"])
    wide.columns = pd.Index([": ".join(pair) for pair in wide.columns.to_list()])
    shown_table(wide.reset_index(), "exactness", run.study)
    st.caption(
        "certified: share of the rows proven without a second search; exact: all ids are those of "
        "a float64 product."
    )
    if run.has("accuracy/errors"):
        st.subheader("Errors of the statistics")
        shown_table(table(run, "accuracy/errors"), "errors", run.study)
