"""The benchmark page: the time of the projections as a ratio to the bare matrix product."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from interp.apps.common import charts, errors_in_place, offer_run, pick_run, plain, table
from interp.bench import figures
from interp.runs.store import Run


@errors_in_place()
def page() -> None:
    st.title("Kernel benchmark")
    run = pick_run("bench.kernels")
    bandwidth = run.manifest["bandwidth_bytes_per_s"]
    st.caption(
        f"{run.manifest['threads']:,} threads, {run.config['repeats']:,} interleaved repeats; "
        f"memory reads {bandwidth / 1e9:.1f} GB/s. The Llama shapes are measured on a part of the "
        "vocabulary and of the vectors; the time of the whole job is extrapolated."
    )
    for shape, metrics in run.metrics["shapes"].items():
        _numbers(shape, metrics)
    summary, shapes = table(run, "summary/variants"), table(run, "shapes/shapes")
    charts("ratios", figures.kernel_ratios(summary))
    charts("roofline", figures.kernel_roofline(summary, shapes, bandwidth))
    st.subheader("Every variant")
    columns = ["shape", "variant", "ratio", "ratio_cpu", "job_s", "peak_bytes", "missing"]
    st.dataframe(summary[columns], hide_index=True)
    st.subheader("Operations and bytes")
    st.dataframe(shapes, hide_index=True)
    if run.has("accuracy/shares"):
        _accuracy(run)
    drawn = "from interp.bench import figures\nfigures.kernel_ratios(run.table('summary/variants'))"
    offer_run(summary, "kernels", run, drawn)


def _numbers(shape: str, metrics: dict[str, float]) -> None:
    st.markdown(f"**{plain(shape)}**")
    names = {
        "certified_ratio": "screened / bare product",
        "fp32_ratio": "float32 / bare product",
        "naive_ratio": "naive / fastest fused",
        "certified_share": "share of rows certified",
    }
    shown = [(name, label) for name, label in names.items() if name in metrics]
    for column, (name, label) in zip(st.columns(len(shown)), shown, strict=True):
        column.metric(plain(label), f"{metrics[name]:.3g}")


def _accuracy(run: Run) -> None:
    st.subheader("Exactness")
    shares = table(run, "accuracy/shares")
    wide = shares.pivot(index=["data", "k"], columns="impl", values=["certified", "exact"])
    wide.columns = pd.Index([": ".join(pair) for pair in wide.columns.to_list()])
    st.dataframe(wide.reset_index(), hide_index=True)
    st.caption(
        "certified: share of the rows proven without a second search; exact: all ids are those of "
        "a float64 product."
    )
    st.subheader("Errors of the statistics")
    st.dataframe(table(run, "accuracy/errors"), hide_index=True)
