"""The benchmark page: how near the projections come to the bare matrix product."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from interp.apps.common import cached, download, pick_run, plain, reproduce
from interp.bench import figures
from interp.runs.store import Run


def _table(run: Run, name: str) -> pd.DataFrame:
    return pd.read_parquet(run.path / f"{name}.parquet")


table = cached(_table)


def page() -> None:
    st.title("Kernel benchmark")
    run = pick_run("bench.kernels", "interp bench kernels")
    st.caption(
        f"{run.manifest['threads']} threads, {run.config['repeats']} interleaved repeats; memory "
        f"reads {run.manifest['bandwidth_bytes_per_s'] / 1e9:.1f} GB/s. Llama shapes are measured "
        "on a part of the vocabulary and of the vectors, and the job's time extrapolated."
    )
    for shape, found in run.metrics["shapes"].items():
        _numbers(shape, found)
    summary, shapes = table(run, "summary/variants"), table(run, "shapes/shapes")
    st.plotly_chart(figures.kernel_ratios(summary), width="stretch", key="ratios")
    bandwidth = run.manifest["bandwidth_bytes_per_s"]
    roofline = figures.kernel_roofline(summary, shapes, bandwidth)
    st.plotly_chart(roofline, width="stretch", key="roofline")
    st.subheader("Every variant")
    columns = ["shape", "variant", "ratio", "ratio_cpu", "job_s", "peak_bytes", "missing"]
    st.dataframe(summary[columns], hide_index=True)
    st.subheader("Operations and bytes")
    st.dataframe(shapes, hide_index=True)
    if (run.path / "accuracy" / "shares.parquet").exists():
        _accuracy(run)
    download(summary, "kernels")
    reproduce(
        ["interp", "bench", "kernels"],
        "from interp import figures\nfrom interp.bench.kernels import KernelBenchConfig\n"
        "from interp.runs.study import run_or_load\nimport pandas as pd\n"
        "run = run_or_load(KernelBenchConfig())\n"
        'figures.kernel_ratios(pd.read_parquet(run.path / "summary" / "variants.parquet"))',
    )


def _numbers(shape: str, found: dict[str, float]) -> None:
    st.markdown(f"**{plain(shape)}**")
    names = {
        "certified_ratio": "screened / bare product",
        "fp32_ratio": "float32 / bare product",
        "naive_ratio": "faster than naive",
        "certified_share": "rows certified",
    }
    shown = [(name, label) for name, label in names.items() if name in found]
    for column, (name, label) in zip(st.columns(len(shown)), shown, strict=True):
        column.metric(label, f"{found[name]:.3g}")


def _accuracy(run: Run) -> None:
    st.subheader("Exactness")
    shares = table(run, "accuracy/shares")
    wide = shares.pivot(index=["data", "k"], columns="impl", values=["certified", "exact"])
    wide.columns = pd.Index([": ".join(pair) for pair in wide.columns.to_list()])
    st.dataframe(wide.reset_index(), hide_index=True)
    st.caption("Share of rows proven without a second search; whether all ids are float64's.")
    st.subheader("Errors of the statistics")
    st.dataframe(table(run, "accuracy/errors"), hide_index=True)
